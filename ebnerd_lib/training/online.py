"""Online updates: a trained model goes through time, scores each step and only then trains on it.

This is prequential evaluation (Dawid, 1984; Gama, Sebastião and Rodrigues, 2013), and how a news site runs: every few
minutes a job takes the latest clicks into the model that serves the next ones. It is honest because a step is scored
before its clicks are looked at, and because all that the model knows of users and articles comes from training
rows and from steps scored before: an id that a step shows for the first time is unknown throughout that step.
One thing is as in static training: the tuning day has chosen the epoch that online updates start from, so metrics of
that day are slightly too high, and those of validation are not.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ebnerd_lib.configs import ONLINE, Online
from ebnerd_lib.data.dataset import PARTS, Dataset
from ebnerd_lib.data.slates import HOUR, candidate_rows
from ebnerd_lib.data.vocabulary import Vocabulary
from ebnerd_lib.models.base import one_thread
from ebnerd_lib.training.batches import SlateBatches
from ebnerd_lib.training.inputs import HistoryReader, IdEncoder, TrainingInputs
from ebnerd_lib.training.model_file import SCORE_BATCH, TrainedModel

_MINUTE = HOUR // 60
_SCORED = ("tuning", "validation")
_ID_BATCH = 16  # slates of a step that move the id tables at once: the next ones see where these have moved them to
_AVERAGE = 0.01  # share of the latest weights in the running average that scores


@dataclass(frozen=True)
class OnlineResult:
    """What online updates give: the model's last state, and the scores of each step before its update.

    The model is named ``<model>_online`` and of tier ``clicks`` whatever it started from: it has seen clicks up to the
    last step. It has scored nothing in this state: for metrics, take ``scores``.
    """

    model: TrainedModel
    scores: dict[str, np.ndarray]  # of ``tuning`` and ``validation``, float32 (candidates,), in the order of its slates


@one_thread()
def update_online(
    model: TrainedModel,
    inputs: TrainingInputs,
    update_minutes: int,
    seed: int = 0,
    report: Callable[[dict[str, Any]], None] | None = None,
    **settings: Any,
) -> OnlineResult:
    """Score, then train, step by step, from the full hour in which the tuning day starts to the end of validation.

    Args:
        model: trained on these inputs; it is left as it is.
        inputs: with the features of all parts. Of the train part only the slates that were trained on are replayed.
        update_minutes: length of a step, which divides an hour or a day.
        seed: of replay, shuffles and dropout.
        report: called after each step with the name of the model and the share of impressions done.
        settings: see ``configs.Online``.

    Raises:
        StageError: a column that the model sees is not among the features.
    """
    dataset = inputs.dataset
    updater = OnlineUpdater(model, inputs, Online(**settings), seed)
    scores = np.full(dataset.log.candidates, np.nan, np.float32)
    steps = step_rows(dataset, update_minutes)
    impressions, done = sum(len(rows) for _, rows in steps), 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for end, rows in steps:
            scores[candidate_rows(dataset.log.offsets, rows)] = updater.score(rows)
            updater.forget(end)
            updater.add_ids(rows)
            updater.train(rows, end)
            done += len(rows)
            if report is not None:
                report({"step": updater.name, "share": done / impressions})
    begins = np.cumsum([0] + [dataset.parts[part].candidates for part in PARTS])
    own = {part: scores[begins[PARTS.index(part)] : begins[PARTS.index(part) + 1]] for part in _SCORED}
    return OnlineResult(updater.finish(), own)


def step_rows(dataset: Dataset, update_minutes: int) -> list[tuple[int, np.ndarray]]:
    """Return the steps that have impressions: when each ends (microseconds) and its rows of ``dataset.log``.

    A step holds the impressions of [end − ``update_minutes``, end), rows ascending; the first one begins on the full
    hour in which the tuning day starts, so steps keep to the clock.
    """
    first = len(dataset.parts["train"])
    time = dataset.log.time[first:]
    length = update_minutes * _MINUTE
    begin = int(dataset.parts["tuning"].time.min()) // HOUR * HOUR
    step = (time - begin) // length
    order = np.argsort(step, kind="stable")
    numbers, cuts = np.unique(step[order], return_index=True)
    pieces = np.split(order + first, cuts[1:])
    return [(begin + (int(number) + 1) * length, rows) for number, rows in zip(numbers, pieces, strict=True)]


class OnlineUpdater:
    """A model that is updated online. ``rows`` are impressions by their position in ``dataset.log``.

    Two kinds of parameters learn in two ways. Tables of ids take each slate of a step once, in order of time, by plain
    gradient steps on the loss times the number of slates: an online estimate for each id, in which a slate taken twice
    would count twice. All other weights take small steps of AdamW on the step's slates mixed with replayed ones, so
    that a quiet hour does not overwrite what days have taught, and the running average of these weights scores.
    """

    def __init__(self, model: TrainedModel, inputs: TrainingInputs, config: Online, seed: int) -> None:
        dataset, features = inputs.dataset, inputs.features
        model.check(features["train"].columns)
        self.name = f"{model.name}{ONLINE}"
        self._trained, self._dataset, self._log = model, dataset, dataset.log
        self._config, self._seed = config, seed
        self._network = copy.deepcopy(model.network)
        self._encoder = IdEncoder.between(dataset, model.users, model.articles)
        self._reader = HistoryReader.of(dataset, model.network)
        self._new: dict[str, list[np.ndarray]] = {"user": [], "article": []}
        self._matrices = [features[part].matrix for part in PARTS]
        self._columns = [features["train"].columns.index(name) for name in model.columns]
        self._clock: int | None = None
        self._has_choice = self._log.has_choice
        first = len(dataset.parts["train"])
        pool = np.concatenate([inputs.rows, first + np.flatnonzero(self._has_choice[first:])])
        self._pool = pool[np.argsort(self._log.time[pool], kind="stable")]
        tables = {id(table.weight) for kind in self._new for table in self._network.id_tables(kind)}
        # A bias that all candidates share ranks nothing, so a model on ids alone has no weights but its tables.
        weighs = self._network.uses_features or self._network.uses_vectors
        named = self._network.named_parameters() if weighs else ()
        self._weights = {name: weight for name, weight in named if id(weight) not in tables}
        self._average = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._optimizer = (
            self._network.adamw(list(self._weights.values()), config.learning_rate) if self._weights else None
        )

    def score(self, rows: np.ndarray) -> np.ndarray:
        """Score the candidates of ``rows`` with what has been learned so far: float32 (m,)."""
        self._network.eval()
        with torch.inference_mode():
            scores = [
                torch.func.functional_call(self._network, self._average, (batch,)).numpy()
                for batch in self._batches(rows, SCORE_BATCH)
            ]
        return np.concatenate(scores)

    def forget(self, now: int) -> None:
        """Move articles towards the unknown id by the time that has passed since the last call."""
        half_life = self._config.half_life_hours * HOUR
        if half_life and self._clock is not None:
            share = 1 - 0.5 ** ((now - self._clock) / half_life)
            for table in self._network.id_tables("article"):
                table.weight.data.lerp_(table.weight.data[:1].clone(), share)
        self._clock = now

    def add_ids(self, rows: np.ndarray) -> None:
        """Give new users and articles of scored ``rows`` their own rows, which start as the unknown id's."""
        shown = self._log.article[candidate_rows(self._log.offsets, rows)]
        for kind, seen, index in (
            ("user", self._log.user[rows], self._encoder.user),
            ("article", shown, self._encoder.article),
        ):
            seen = np.unique(seen)
            new = seen[(seen > 0) & (index[seen] == 0)]
            if len(new):
                size = self._network.hyperparameters[f"{kind}s"]
                index[new] = size + np.arange(len(new))
                self._network.reindex(kind, np.concatenate([np.arange(size), np.zeros(len(new), np.int64)]))
                self._new[kind].append(new)

    def train(self, rows: np.ndarray, end: int) -> None:
        """Train on scored ``rows`` of a step that ended at ``end``, and on slates before it."""
        rows = rows[self._has_choice[rows]]
        if not len(rows):
            return
        self._train_ids(rows[np.argsort(self._log.time[rows], kind="stable")])
        self._train_weights(rows, end)

    def finish(self) -> TrainedModel:
        """Return the model as it is now, with vocabularies in the order that files keep."""
        vocabularies = {}
        for kind, known, ids in (
            ("user", self._trained.users, self._dataset.users["user_id"]),
            ("article", self._trained.articles, self._dataset.articles["article_id"]),
        ):
            new = [ids.to_numpy()[index].astype(np.int64) for index in self._new[kind]]
            every = np.concatenate([known.ids.astype(np.int64), *new])
            self._network.reindex(kind, np.concatenate([[0], 1 + np.argsort(every)]))
            vocabularies[kind] = Vocabulary(every)
        for name, weight in self._weights.items():
            weight.data.copy_(self._average[name])
        network, users, articles = self._network.eval(), vocabularies["user"], vocabularies["article"]
        return replace(self._trained, name=self.name, tier="clicks", network=network, users=users, articles=articles)

    def _train_ids(self, rows: np.ndarray) -> None:
        tables = [table.weight for kind in self._new for table in self._network.id_tables(kind)]
        rates = [self._config.bias_rate if t.shape[1] == 1 else self._config.vector_rate for t in tables]
        if not any(rates):
            return
        self._network.eval()
        for batch in self._batches(rows, _ID_BATCH):
            # Each network of an ensemble moves as far as one alone would.
            loss = self._network.loss(batch) * len(batch.user) * self._network.size
            gradients = torch.autograd.grad(loss, tables, allow_unused=True)
            for table, rate, gradient in zip(tables, rates, gradients, strict=True):
                if gradient is not None:
                    table.data.sub_(gradient, alpha=rate)

    def _train_weights(self, rows: np.ndarray, end: int) -> None:
        if self._optimizer is None:
            return
        rng = np.random.default_rng((self._seed, end))
        times = self._log.time[self._pool]
        first, last = np.searchsorted(times, [end - int(self._config.replay_hours * HOUR), end])
        wanted = round(self._config.replay * len(rows)) if last > first else 0
        replayed = self._pool[rng.integers(first, last, wanted)] if wanted else rows[:0]
        self._network.train()
        for batch in self._batches(rng.permutation(np.concatenate([rows, replayed])), self._config.batch_size):
            self._optimizer.zero_grad()
            self._network.loss(batch).backward()
            self._optimizer.step()
            for name, weight in self._weights.items():
                self._average[name].lerp_(weight.detach(), _AVERAGE)
        self._network.zero_grad()

    def _batches(self, rows: np.ndarray, batch_size: int) -> SlateBatches:
        return SlateBatches(self._log, self._matrices, self._columns, self._encoder, rows, batch_size, self._reader)
