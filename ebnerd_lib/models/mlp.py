"""A multilayer perceptron over user and article embeddings, features and the slate around a candidate."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from ebnerd_lib.errors import ConfigError
from ebnerd_lib.models.base import Batch, SlateModel, embedding, pad, slate_mean
from ebnerd_lib.models.layers import Dropout

_HEADS = 4


class MLP(SlateModel):
    """Score = MLP(user embedding ⊕ article embedding ⊕ transformed features, ⊕ the slate's context).

    The context tells a candidate what it competes with. It joins the first hidden layer's output h:

    - ``mean``: the mean of h over the slate, after a layer of its own (Zaheer et al., Deep Sets, 2017);
    - ``attention``: what the candidate's h attends to among those of its slate (Vaswani et al., 2017), four heads.

    Args:
        embedding_size: width of both embeddings; 0 leaves ids out.
        hidden: widths of the hidden layers.
        dropout: share of hidden units that training drops.
        context: ``mean``, ``attention`` or ``none``, which scores candidates one by one.

    Raises:
        ConfigError: the context has no hidden layer to join, or one that its heads cannot share.
    """

    name: ClassVar[str] = "mlp"

    def __init__(
        self,
        embedding_size: int = 8,
        hidden: tuple[int, ...] = (128, 64),
        dropout: float = 0.1,
        context: str = "none",
        **settings: Any,
    ) -> None:
        super().__init__(
            embedding_size=embedding_size, hidden=list(hidden), dropout=dropout, context=context, **settings
        )
        if context != "none" and (not hidden or (context == "attention" and hidden[0] % _HEADS)):
            raise ConfigError(
                f"hidden: {list(hidden)} has no first layer for context: {context}. Give it one; for attention, a "
                f"multiple of {_HEADS}."
            )
        self.uses_slate_context = context != "none"
        size = self.hyperparameters
        self.users = embedding(size["users"], embedding_size)
        self.articles = embedding(size["articles"], embedding_size)
        width = size["columns"] + 2 * embedding_size
        blocks = []
        for place, units in enumerate(hidden):
            blocks.append(nn.Sequential(nn.Linear(width, units), nn.ReLU(), Dropout(dropout)))
            width = 2 * units if place == 0 and context != "none" else units
        self.first = blocks[0] if blocks else nn.Identity()
        self.rest = nn.Sequential(*blocks[1:], nn.Linear(width, 1))
        if context == "mean":
            self.around = nn.Sequential(nn.Linear(hidden[0], hidden[0]), nn.ReLU())
        elif context == "attention":
            self.attention = nn.MultiheadAttention(hidden[0], _HEADS, batch_first=True)

    def score(self, batch: Batch) -> torch.Tensor:
        """Score candidates, each in the context of its slate."""
        ids = torch.cat([self.users(batch.user)[batch.slate], self.articles(batch.article)], dim=1)
        own = self._first(ids, batch.features)
        context = self.hyperparameters["context"]
        if context == "mean":
            own = torch.cat([own, slate_mean(self.around(own), batch)], dim=1)
        elif context == "attention":
            table, free = pad(own, batch, 0.0), pad(torch.zeros_like(batch.slate, dtype=torch.bool), batch, True)
            attended, _ = self.attention(table, table, table, key_padding_mask=free, need_weights=False)
            own = torch.cat([own, attended[batch.slate, batch.place]], dim=1)
        return self.rest(own).squeeze(1)

    def _first(self, ids: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Return the first hidden layer's output: (m, units); its input where there is none."""
        if isinstance(self.first, nn.Identity):
            return torch.cat([ids, features], dim=1)
        linear: nn.Linear = self.first[0]  # type: ignore[assignment]
        width = ids.shape[1]
        # Two products in place of one: with features and ids in one input, its gradient is computed for both, and
        # features need none.
        own = F.linear(features, linear.weight[:, width:], linear.bias)
        return self.first[1:](torch.addmm(own, ids, linear.weight[:, :width].t()))
