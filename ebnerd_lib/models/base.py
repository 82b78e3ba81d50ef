"""What every model shares: batches, padding, losses, AUC and nDCG of slates, tables of ids, the optimiser."""

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ebnerd_lib.errors import ConfigError
from ebnerd_lib.models.layers import FeatureTransform

CATEGORIES = ("categories", "subcategories")
"""The settings of a model that looks at categories: the ids that it tells apart, in the order of ``Batch.views``."""


class Batch(NamedTuple):
    """Some slates, n impressions and m candidates, flat and without padding."""

    features: torch.Tensor  # float32 (m, columns), raw values, NaN where unknown
    user: torch.Tensor  # int64 (n,), index into the model's own users, 0 unknown
    article: torch.Tensor  # int64 (m,), index into the model's own articles, 0 unknown
    slate: torch.Tensor  # int64 (m,), which of the n slates a candidate belongs to
    place: torch.Tensor  # int64 (m,), position of the candidate within its slate
    clicked: torch.Tensor  # float32 (m,)
    # float32 (k, size), of each article of the batch once, the unknown first; zeros where an article has no vector.
    # Empty, as the four that follow, for models that do not look at vectors
    vectors: torch.Tensor = torch.empty(0, 0)
    # int64 (k, 2), the categories and subcategories of these articles, indices into the model's own
    views: torch.Tensor = torch.empty(0, 2, dtype=torch.int64)
    candidate: torch.Tensor = torch.empty(0, dtype=torch.int64)  # int64 (m,), which of the k articles a candidate is
    # int64 (n, history), which of them the user clicked last before the week, oldest first; 0 is none
    read: torch.Tensor = torch.empty(0, 0, dtype=torch.int64)
    # int64 (n, history), the same of the user's clicks in this session, strictly before the impression
    session: torch.Tensor = torch.empty(0, 0, dtype=torch.int64)
    # float32 (m,), where slates are samples of longer ones: the log of each candidate's chance; else 0
    log_chance: torch.Tensor = torch.zeros(())

    def with_vector(self, places: torch.Tensor) -> torch.Tensor:
        """Return which places of ``read`` or ``session`` hold an article with a vector: bool, of the same shape."""
        return self.vectors.any(dim=1)[places]

    def mean_read(self, values: torch.Tensor) -> torch.Tensor:
        """Return the mean of values (k, width) over the articles with a vector that the user read, zeros of none."""
        known = self.with_vector(self.read).unsqueeze(2)
        return (values[self.read] * known).sum(dim=1) / known.sum(dim=1).clamp(min=1)


def slate_mean(values: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the mean of values (m, width) over the candidates of each slate, for each candidate: (m, width)."""
    slates = len(batch.user)
    total = values.new_zeros(slates, values.shape[1]).index_add(0, batch.slate, values)
    count = values.new_zeros(slates).index_add(0, batch.slate, torch.ones_like(values[:, 0]))
    return (total / count.unsqueeze(1))[batch.slate]


def pad(values: torch.Tensor, batch: Batch, fill: float) -> torch.Tensor:
    """Spread values (m, …) over a (n, longest slate, …) tensor, ``fill`` where a slate is shorter."""
    out = values.new_full((len(batch.user), int(batch.place.max()) + 1, *values.shape[1:]), fill)
    return out.index_put((batch.slate, batch.place), values)


WIDE = torch.float32 if torch.backends.mps.is_available() else torch.float64
"""Type of sums over slates: they come out the same however slates are shared by processes. Apple's GPU lacks it."""


def listwise(scores: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Softmax cross entropy of the clicked candidate against the others of its slate, the mean over clicks.

    Several clicks in a slate count one by one; a slate without a click contributes nothing.
    """
    log_share = pad(scores, batch, float("-inf")).log_softmax(dim=1)
    at_clicks = log_share[batch.slate, batch.place] * batch.clicked
    return -at_clicks.sum() / batch.clicked.sum().clamp(min=1.0)


def bce(scores: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Binary cross entropy of every candidate on its own, the mean over candidates."""
    return F.binary_cross_entropy_with_logits(scores, batch.clicked)


LOSSES: dict[str, Callable[[torch.Tensor, Batch], torch.Tensor]] = {"listwise": listwise, "bce": bce}


def slate_auc(scores: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the AUC of each slate that has a click and something beside it; ties count one half."""
    table = pad(scores.float(), batch, 0.0)
    others = pad(1 - batch.clicked, batch, 0.0)
    click = batch.clicked > 0
    row = batch.slate[click]
    mine = scores[click].float().unsqueeze(1)
    wins = (((mine > table[row]) + 0.5 * (mine == table[row])) * others[row]).sum(dim=1)
    # Sums by index_add: on a GPU, torch refuses weighted bincount where runs must repeat.
    nothing = wins.new_zeros(len(batch.user))
    pairs = nothing.index_add(0, row, torch.ones_like(wins)) * others.sum(dim=1)
    evaluated = pairs > 0
    return nothing.index_add(0, row, wins)[evaluated].to(WIDE) / pairs[evaluated]


def slate_ndcg(scores: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the nDCG@10 of each slate with a click, the mean over its clicks, each ranked alone; ties share a rank."""
    table, click = pad(scores.float(), batch, float("-inf")), batch.clicked > 0
    row, mine = batch.slate[click], scores[click].float().unsqueeze(1)
    rank = (table[row] > mine).sum(dim=1) + ((table[row] == mine).sum(dim=1) + 1) / 2
    gain = torch.where(rank <= 10, 1 / torch.log2(rank + 1), 0.0).to(WIDE)
    nothing = gain.new_zeros(len(batch.user))
    clicks = nothing.index_add(0, row, torch.ones_like(gain))
    return nothing.index_add(0, row, gain)[clicks > 0] / clicks[clicks > 0]


class RowwiseAdamW(torch.optim.AdamW):
    """AdamW (Loshchilov and Hutter, 2019) that moves only those rows of a table that the batch has looked at.

    A parameter with a sparse gradient, as of ``nn.Embedding(sparse=True)``, is updated by row: the moments and the
    decay of a row stand still while no batch has it, as in ``torch.optim.SparseAdam``. All others are updated by
    torch's fused kernel. The state is that of AdamW, so checkpoints hold one optimizer and one schedule.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float) -> None:
        super().__init__(groups, lr=lr, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; ``closure`` computes the loss and the gradients, if given, and its result is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        tables = [
            (group, table, table.grad)
            for group in self.param_groups
            for table in group["params"]
            if table.grad is not None and table.grad.is_sparse
        ]
        for _, table, _ in tables:
            table.grad = None
        super().step()
        for group, table, gradient in tables:
            self._move_rows(group, table, gradient.coalesce())
            table.grad = gradient
        return loss

    def _move_rows(self, group: dict[str, Any], table: torch.Tensor, gradient: torch.Tensor) -> None:
        """Step on the rows of a coalesced sparse gradient."""
        state = self.state[table]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=table.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(table), torch.zeros_like(table)
        state["step"] += 1
        step, (beta, beta_2) = state["step"].item(), group["betas"]
        rows, slope = gradient.indices()[0], gradient.values()
        mean = state["exp_avg"].index_select(0, rows).lerp_(slope, 1 - beta)
        square = state["exp_avg_sq"].index_select(0, rows).mul_(beta_2).addcmul_(slope, slope, value=1 - beta_2)
        state["exp_avg"].index_copy_(0, rows, mean)
        state["exp_avg_sq"].index_copy_(0, rows, square)
        own = table.index_select(0, rows).mul_(1 - group["lr"] * group["weight_decay"])
        deviation = square.sqrt_().div_((1 - beta_2**step) ** 0.5).add_(group["eps"])
        table.index_copy_(0, rows, own.addcdiv_(mean, deviation, value=-group["lr"] / (1 - beta**step)))


class SlateModel(nn.Module):
    """A model that scores the candidates of a batch of slates.

    A subclass sets ``name``, builds its layers in ``__init__`` after calling this one, and implements ``score``. It
    says what it looks at: ``uses_features`` (of ``feature_names`` alone, where it names some), ``uses_vectors`` of
    articles and of the user's history, ``uses_categories`` of these, ``uses_session`` for the clicks of this session.
    ``own_tier`` is its information tier; with features the lowest that it may have. ``uses_slate_context`` says
    whether a candidate's score depends on what else is in its slate. It names its tables of ids ``user…`` and
    ``article…``: by these names they grow in online updates.

    Args:
        columns: number of feature columns it is given.
        users: size of its user vocabulary, the unknown id included.
        articles: size of its article vocabulary, the unknown id included.
        vector_size: length of article vectors, 0 where there are none.
        history_length: clicks of the user's history that it looks at, the latest ones.
        loss: ``listwise`` or ``bce``.
        learning_rate: peak of a one-cycle schedule, or the constant rate.
        weight_decay: decoupled, of AdamW.
        schedule: ``one_cycle`` or ``constant``.
        id_dropout: share of users and articles that training replaces by the unknown id, so that index 0 is
            trained on what unknown ones are like instead of staying as it was initialised.
    """

    name: ClassVar[str]
    uses_features: ClassVar[bool] = True
    feature_names: ClassVar[tuple[str, ...]] = ()
    uses_vectors: ClassVar[bool] = False
    uses_categories: ClassVar[bool] = False
    uses_session: ClassVar[bool] = False
    uses_slate_context: bool = True
    own_tier: ClassVar[str] = "ids"
    size = 1  # networks whose scores are averaged

    def __init__(
        self,
        columns: int,
        users: int,
        articles: int,
        vector_size: int = 0,
        history_length: int = 30,
        loss: str = "listwise",
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        schedule: str = "one_cycle",
        id_dropout: float = 0.1,
        **layers: Any,
    ) -> None:
        super().__init__()
        self.hyperparameters: dict[str, Any] = {
            "columns": columns, "users": users, "articles": articles, "vector_size": vector_size,
            "history_length": history_length, "loss": loss, "learning_rate": learning_rate,
            "weight_decay": weight_decay, "schedule": schedule, "id_dropout": id_dropout, **layers,
        }  # fmt: skip
        self.transform = FeatureTransform(columns)

    @property
    def trained_parameters(self) -> int:
        """The number of trained parameters."""
        return sum(weights.numel() for weights in self.parameters())

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

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return what training minimises.

        Where slates are samples, a score less the log of the chance estimates the loss over the whole slate (Bengio
        and Senécal, 2008): else the model would rank low what is sampled often.
        """
        return LOSSES[self.hyperparameters["loss"]](self(batch) - batch.log_chance, batch)

    @classmethod
    def known(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of some settings that this model takes."""
        kinds = [kind for kind in cls.__mro__ if issubclass(kind, SlateModel)]
        taken = {name for kind in kinds for name in inspect.signature(kind).parameters}
        return {name: value for name, value in settings.items() if name in taken}

    def adamw(self, parameters: list[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
        """Return AdamW over some of the parameters, with decay on matrices only."""
        matrices, others = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
        decay = self.hyperparameters["weight_decay"]
        groups = [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
        return RowwiseAdamW([group for group in groups if group["params"]], learning_rate)

    def id_tables(self, kind: str) -> list[nn.Embedding]:
        """Return the tables with a row for each ``user`` or each ``article``, the unknown id in row 0."""
        return [
            module
            for path, module in self.named_modules()
            if isinstance(module, nn.Embedding) and path.rpartition(".")[2].startswith(kind)
        ]

    def reindex(self, kind: str, source: np.ndarray) -> None:
        """Give every table of a kind new rows, each a copy of an old one.

        This grows tables (new rows from row 0, the unknown id's) and puts them in another order. The tables' weights
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


def embedding(size: int, width: int) -> nn.Embedding:
    """Return an embedding table of small normal weights, the unknown id's row included; its gradients are sparse."""
    table = nn.Embedding(size, width, sparse=True)
    nn.init.normal_(table.weight, std=0.01)
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


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread of the CPU within a ``with`` block or a decorated function.

    With ``MKL_CBWR`` set, matrix products repeat over numbers of threads on Intel's processors alone. On one thread
    they do on all. Networks as small as these gain little from a second one, and a GPU is not affected.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
