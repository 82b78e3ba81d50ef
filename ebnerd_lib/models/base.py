"""The base class of all models, and how a model is found by its name."""

import importlib
import inspect
from typing import Any, ClassVar

import numpy as np
import pytorch_lightning as pl
import torch
from torch import nn

from ebnerd_lib.errors import ConfigError
from ebnerd_lib.models.adamw import RowwiseAdamW
from ebnerd_lib.models.auc import SlateAUC
from ebnerd_lib.models.batch import Batch
from ebnerd_lib.models.losses import LOSSES, TuningLoss
from ebnerd_lib.models.transform import FeatureTransform


class SlateModel(pl.LightningModule):
    """A model that scores the candidates of a batch of slates.

    A subclass sets ``name``, builds its layers in ``__init__`` after calling this one, and implements ``score``. It
    says by ``uses_features`` whether it looks at features; if not, ``own_tier`` is its information tier. It says by
    ``uses_vectors`` whether it looks at article vectors and at those of the user's history, and by ``looks_around``
    whether a candidate's score depends on what else is in its slate. It names its tables of
    ids ``user…`` and ``article…``: by these names they grow when a model learns on.

    Args:
        columns: number of feature columns it is given.
        users: size of its user vocabulary, the unknown included.
        articles: size of its article vocabulary, the unknown included.
        vector_size: length of article vectors, 0 where there are none.
        history_length: clicks of the user's history that it looks at, the latest ones.
        loss: ``listwise`` or ``bce``.
        learning_rate: peak of a one-cycle schedule, or the constant rate.
        weight_decay: decoupled, of AdamW.
        schedule: ``one_cycle`` or ``constant``.
        id_dropout: share of users and articles that training replaces by the unknown, so that index 0 is
            trained on what unknown ones are like instead of staying an accidental zero.
    """

    name: ClassVar[str]
    uses_features: ClassVar[bool] = True
    uses_vectors: ClassVar[bool] = False
    looks_around: bool = True
    own_tier: ClassVar[str] = "ids"

    def __init__(
        self,
        columns: int,
        users: int,
        articles: int,
        vector_size: int = 0,
        history_length: int = 0,
        loss: str = "listwise",
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        schedule: str = "one_cycle",
        id_dropout: float = 0.1,
        **layers: Any,
    ) -> None:
        super().__init__()
        if loss not in LOSSES:
            raise ConfigError(f"loss: '{loss}' is unknown. Use one of {', '.join(LOSSES)}.")
        if schedule not in ("one_cycle", "constant"):
            raise ConfigError(f"schedule: '{schedule}' is unknown. Use one_cycle or constant.")
        self.hyperparameters: dict[str, Any] = {
            "columns": columns, "users": users, "articles": articles, "vector_size": vector_size,
            "history_length": history_length, "loss": loss, "learning_rate": learning_rate,
            "weight_decay": weight_decay, "schedule": schedule, "id_dropout": id_dropout, **layers,
        }  # fmt: skip
        self.transform = FeatureTransform(columns)
        self.tuning_auc, self.tuning_loss = SlateAUC(), TuningLoss(loss)

    def score(self, batch: Batch) -> torch.Tensor:
        """Score the candidates of a batch, whose features are transformed already: (m,)."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> torch.Tensor:
        """Score every candidate of a batch: (m,)."""
        if self.training:
            batch = batch._replace(user=self._forget(batch.user), article=self._forget(batch.article))
        if self.uses_features:
            batch = batch._replace(features=self.transform(batch.features))
        return self.score(batch)

    @property
    def size(self) -> int:
        """The number of networks whose scores are averaged."""
        return 1

    @classmethod
    def settings(cls) -> set[str]:
        """Return the names of the settings that this model knows."""
        known: set[str] = set()
        for kind in cls.__mro__[: cls.__mro__.index(SlateModel) + 1]:
            named = inspect.signature(kind).parameters.values()
            known |= {each.name for each in named if each.kind == each.POSITIONAL_OR_KEYWORD}
        return known - {"columns", "users", "articles", "vector_size"}

    def copy(self) -> "SlateModel":
        """Return a model of the same settings and weights, free of what training has attached to this one."""
        copy = type(self)(**self.hyperparameters)
        copy.load_state_dict(self.state_dict())
        return copy.train(self.training)

    def on_train_epoch_start(self) -> None:
        """Start the sums of the epoch's mean loss."""
        self._losses: list[torch.Tensor] = []
        self._slates: list[int] = []

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        """Return the loss of a batch; the mean is logged once an epoch, as to log takes longer than a small step."""
        loss = LOSSES[self.hyperparameters["loss"]](self(batch), batch)
        self._losses.append(loss.detach())
        self._slates.append(len(batch.user))
        if self.trainer.is_last_batch:
            slates = torch.tensor(self._slates, dtype=loss.dtype, device=loss.device)
            mean = (torch.stack(self._losses) * slates).sum() / slates.sum()
            self.log("train/loss", mean, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        """Collect the AUC of the tuning day's slates, and its loss."""
        scores = self(batch)
        self.tuning_auc.update(scores, batch)
        self.tuning_loss.update(scores, batch)
        self.log("val/loss", self.tuning_loss, on_step=False, on_epoch=True, batch_size=len(batch.user))
        self.log("val/auc", self.tuning_auc, on_step=False, on_epoch=True, batch_size=len(batch.user))

    def configure_optimizers(self) -> Any:
        """AdamW, with decay on matrices only, and the schedule."""
        settings = self.hyperparameters
        optimizer = self.adamw(list(self.parameters()), settings["learning_rate"])
        if settings["schedule"] == "constant":
            return optimizer
        # Of five steps, a fifth is one: the schedule would divide by the length 0 of its way up.
        steps = max(int(self.trainer.estimated_stepping_batches), 6)
        one_cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, settings["learning_rate"], total_steps=steps, pct_start=0.2, cycle_momentum=False
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": one_cycle, "interval": "step"}}

    def adamw(self, parameters: list[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
        """Return AdamW over some of the parameters, with decay on matrices only."""
        groups = [
            {
                "params": [p for p in parameters if p.ndim > 1],
                "weight_decay": self.hyperparameters["weight_decay"],
            },
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        return RowwiseAdamW([g for g in groups if g["params"]], learning_rate)

    def id_tables(self, kind: str) -> list[nn.Embedding]:
        """Return the tables with a row for each ``user`` or each ``article``, the unknown in row 0."""
        return [
            module
            for path, module in self.named_modules()
            if isinstance(module, nn.Embedding) and path.rpartition(".")[2].startswith(kind)
        ]

    def reindex(self, kind: str, source: np.ndarray) -> None:
        """Give every table of a kind new rows, each a copy of an old one.

        This grows tables (new rows from row 0, the unknown's) and puts them in another order. The tables' weights
        are new parameters afterwards: an optimizer that holds the old ones does not train them.

        Args:
            kind: ``user`` or ``article``.
            source: int64 (new rows,), the old row that each new row starts as; its first entry is 0.
        """
        rows = torch.from_numpy(np.asarray(source, dtype=np.int64))
        for table in self.id_tables(kind):
            table.weight = nn.Parameter(table.weight.data[rows])
            table.num_embeddings = len(rows)
        self.hyperparameters[f"{kind}s"] = len(rows)

    def _forget(self, index: torch.Tensor) -> torch.Tensor:
        share = self.hyperparameters["id_dropout"]
        return index * (torch.rand(index.shape, device=index.device) >= share)


def embedding(size: int, width: int, spread: float = 0.01) -> nn.Embedding:
    """Return an embedding table of small normal weights, the unknown's row included; its gradients are sparse."""
    table = nn.Embedding(size, width, sparse=True)
    nn.init.normal_(table.weight, std=spread)
    return table


def find_model(module: str, name: str) -> type[SlateModel]:
    """Return the model class called ``name`` in ``ebnerd_lib.models.<module>``.

    Raises:
        ConfigError: there is no such module, or no model of that name in it.
    """
    try:
        found = importlib.import_module(f"ebnerd_lib.models.{module}")
    except ModuleNotFoundError as error:
        raise ConfigError(f"module: there is no ebnerd_lib/models/{module}.py.") from error
    models = {
        thing.name: thing
        for thing in vars(found).values()
        if isinstance(thing, type) and issubclass(thing, SlateModel) and hasattr(thing, "name")
    }
    if name not in models:
        raise ConfigError(
            f"models: ebnerd_lib/models/{module}.py has no model '{name}'; it has {', '.join(sorted(models))}."
        )
    return models[name]
