"""The original notebook's way to feed a model: a ``Dataset`` that hands out one row, a ``DataLoader`` that stacks them.

One row is one candidate here, with its own user, article and label, so that it says the same as our batches do.
"""

import torch
from torch.utils.data import DataLoader, Dataset

BATCH = 1024


class Candidates(Dataset[dict[str, torch.Tensor]]):
    """One row a candidate.

    Args:
        user: int64 (m,).
        article: int64 (m,).
        clicked: float32 (m,).
        sentiment: float32 (m,).
    """

    def __init__(
        self, user: torch.Tensor, article: torch.Tensor, clicked: torch.Tensor, sentiment: torch.Tensor
    ) -> None:
        self._columns = {"user": user, "article": article, "sentiment": sentiment}
        self._clicked = clicked

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._clicked)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        """Return one row."""
        click = self._clicked[row].long()
        return {**{name: column[row] for name, column in self._columns.items()}, "click": click, "noclick": 1 - click}


def loader(rows: Candidates) -> DataLoader[dict[str, torch.Tensor]]:
    """Return the loader over rows, shuffled."""
    return DataLoader(rows, batch_size=BATCH, shuffle=True)
