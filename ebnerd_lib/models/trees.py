"""Boosted trees by LightGBM, an optional library, as a model among the others."""

from typing import Any, ClassVar

import torch

from ebnerd_lib.errors import ConfigError
from ebnerd_lib.models.base import Batch, SlateModel

try:
    import lightgbm
except ImportError:  # the extra is not installed
    lightgbm = None


class Trees(SlateModel):
    """Score = Σ_k f_k(x), f_k regression trees over the raw features x, NaN being missing (Ke et al., LightGBM, 2017).

    Args:
        text: the trees in LightGBM's own text format; none before training.
        settings: see ``SlateModel``; those of gradient descent do not matter.

    Raises:
        ConfigError: LightGBM is not installed.
    """

    name: ClassVar[str] = "trees"
    uses_slate_context = False
    own_tier: ClassVar[str] = "content"

    def __init__(self, text: str = "", **settings: Any) -> None:
        super().__init__(text=text, **settings)
        if lightgbm is None:
            raise ConfigError(
                "03_train_trees: LightGBM is not installed. "
                "Run `pip install -e '.[trees]'` in the project's environment."
            )
        self.booster = lightgbm.Booster(model_str=text) if text else None

    @property
    def trained_parameters(self) -> int:
        """The number of thresholds and leaf values."""
        return 0 if self.booster is None else len(self.booster.trees_to_dataframe())

    def forward(self, batch: Batch) -> torch.Tensor:
        """Score every candidate of a batch by its raw features, which trees need not have transformed: (m,)."""
        if self.booster is None:
            return torch.zeros(len(batch.features))
        return torch.from_numpy(self.booster.predict(batch.features.numpy(), raw_score=True)).float()
