"""The original's two models, trained as it trains them, to see what that training does and what its figures show.

They are written afresh and as small as the point needs; what they are fed is the original's (``labels.Feed``).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.evaluation.audit.join import Joined
from ebnerd_lib.evaluation.audit.labels import Feed
from ebnerd_lib.evaluation.audit.scores import BATCH_SIZE, batch_edges, batch_f1, halves_auroc, halves_f1
from ebnerd_lib.evaluation.audit.sentiment import user_probability
from ebnerd_lib.evaluation.metrics import per_slate
from ebnerd_lib.models.threads import one_thread

LEARNING_RATE = 1e-3
FACTORS = 10
EMBEDDING, HIDDEN = 64, (128, 64)

Step = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Rows of a batch to its loss and to the scores (k, rows) of the batch."""


@dataclass(frozen=True)
class Replica:
    """A trained model of the original, with its own figures.

    Attributes:
        users: float32 (users, size), vectors after training.
        articles: float32 (articles, size), likewise.
        moved: int64, the articles whose vector training has changed.
        loss: float64 (epochs,), mean over the batches of an epoch.
        train_auroc: float64 (epochs, batches), of each training batch as the original computes it.
        auroc: its AUROC on the validation rows, the mean over batches.
        f1: its F1 there, likewise.
    """

    users: np.ndarray
    articles: np.ndarray
    moved: np.ndarray
    loss: np.ndarray
    train_auroc: np.ndarray
    auroc: float
    f1: float


@dataclass(frozen=True)
class Rows:
    """What the original trains on, and what it judges by.

    Attributes:
        feed: users, pages and labels.
        mood: float32 (r,), average sentiment of the history that each row met.
    """

    feed: Feed
    mood: np.ndarray


def row_sentiment(dataset: Dataset, rows: Joined) -> np.ndarray:
    """Return the average that the original gives each joined row, of the history it met: float32 (r,).

    Rows without one get the mean of all rows, or 0 where no row has one.
    """
    averages = np.stack([user_probability(dataset, week) for week in range(len(dataset.histories))])
    found = np.where(rows.week < 0, np.nan, averages[rows.week, dataset.log.user[rows.impression]])
    known = found[~np.isnan(found)]
    return np.where(np.isnan(found), known.mean() if len(known) else 0.0, found).astype(np.float32)


def train_factorisation(train: Rows, valid: Rows, size: tuple[int, int], epochs: int, seed: int) -> Replica:
    """Train the original's factorisation: the label of a row is its article's index, 1 less it the other article's.

    Both vectors have the row's average sentiment appended, so its square is added to both scores.

    Args:
        train: rows to train on.
        valid: rows to judge.
        size: number of users and of articles, the unknown included.
        epochs: passes over the rows.
        seed: of weights and shuffles.
    """
    torch.manual_seed(seed)
    users, articles = nn.Embedding(size[0], FACTORS), nn.Embedding(size[1], FACTORS)
    before = articles.weight.detach().numpy().copy()

    def scores(user: torch.Tensor, label: torch.Tensor, mood: torch.Tensor) -> torch.Tensor:
        mine = users(user)
        return torch.stack([(mine * articles(index)).sum(dim=1) + mood * mood for index in (label, 1 - label)])

    inputs = _tensors(train.feed.user, train.feed.label.astype(np.int64), train.mood)

    def step(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        both = scores(*(each[rows] for each in inputs))
        return F.cross_entropy(both.T, torch.zeros(len(rows), dtype=torch.int64)), both

    loss, passes = _train([users.weight, articles.weight], step, len(train.mood), epochs)
    with torch.no_grad():
        click, other = scores(*_tensors(valid.feed.user, valid.feed.label.astype(np.int64), valid.mood)).numpy()
    after = articles.weight.detach().numpy()
    return Replica(
        users=users.weight.detach().numpy(),
        articles=after,
        moved=moved_rows(before, after),
        loss=loss,
        train_auroc=np.array([halves_auroc(*seen) for seen, _ in passes]),
        auroc=float(halves_auroc(click, other).mean()),
        f1=float(halves_f1(click, other).mean()),
    )


def train_perceptron(train: Rows, valid: Rows, size: tuple[int, int], epochs: int, seed: int) -> Replica:
    """Train the original's perceptron: cross entropy of each row's label, given its user and its page.

    Sentiment is handed to the original's and not used by it. AUROC is the mean over the batches that have both classes,
    F1 the mean over all of them, at a probability of .5. Arguments are those of ``train_factorisation``.
    """
    torch.manual_seed(seed)
    users, articles = nn.Embedding(size[0], EMBEDDING), nn.Embedding(size[1], EMBEDDING)
    layers = nn.Sequential(
        nn.Linear(2 * EMBEDDING, HIDDEN[0]), nn.ReLU(), nn.Linear(*HIDDEN), nn.ReLU(), nn.Linear(HIDDEN[1], 1)
    )
    before = articles.weight.detach().numpy().copy()

    def scores(user: torch.Tensor, page: torch.Tensor) -> torch.Tensor:
        return layers(torch.cat([users(user), articles(page)], dim=1)).T

    user, page, label = _tensors(train.feed.user, train.feed.article, train.feed.label.astype(np.float32))

    def step(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        own = scores(user[rows], page[rows])
        return F.binary_cross_entropy_with_logits(own[0], label[rows]), own

    loss, passes = _train([users.weight, articles.weight, *layers.parameters()], step, len(user), epochs)
    with torch.no_grad():
        final = scores(*_tensors(valid.feed.user, valid.feed.article)).numpy()[0]
    after = articles.weight.detach().numpy()
    by_batch = _auc_by_batch(final, valid.feed.label)
    known = by_batch[~np.isnan(by_batch)]
    return Replica(
        users=users.weight.detach().numpy(),
        articles=after,
        moved=moved_rows(before, after),
        loss=loss,
        train_auroc=np.array([_auc_by_batch(seen[0], train.feed.label[order]) for seen, order in passes]),
        auroc=float(known.mean()) if len(known) else float("nan"),
        f1=float(batch_f1(final > 0, valid.feed.label, batch_edges(len(final), BATCH_SIZE)[:-1]).mean()),
    )


def moved_rows(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return the rows of a table that differ from what they were: int64.

    >>> moved_rows(np.zeros((3, 2)), np.array([[0, 0], [0, 1], [0, 0]]))
    array([1])
    """
    return np.flatnonzero((before != after).any(axis=1))


@one_thread()
def _train(
    parameters: list[torch.Tensor], step: Step, rows: int, epochs: int
) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """Return the mean loss of each epoch, and the scores (k, rows) of each with the order in which rows were seen."""
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE, fused=True)
    loss, passes = np.zeros(epochs), []
    for epoch in range(epochs):
        order = torch.randperm(rows)
        seen, losses = [], []
        for batch in order.split(BATCH_SIZE):
            value, scores = step(batch)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            losses.append(float(value.detach()))
            seen.append(scores.detach())
        loss[epoch] = np.mean(losses)
        passes.append((torch.cat(seen, dim=1).numpy(), order.numpy()))
    return loss, passes


def _auc_by_batch(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return per_slate(scores, labels, batch_edges(len(labels), BATCH_SIZE))[:, 0]


def _tensors(*arrays: np.ndarray) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
