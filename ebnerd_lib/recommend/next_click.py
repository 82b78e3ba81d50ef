"""Next click among live articles: where the article that was clicked stands when a scorer ranks all that was live.

Clicks happened on what was shown, so this rewards guessing the page as well as the reader. It compares scorers with
one another; it is no A/B test.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import Slates, candidate_rows
from ebnerd_lib.evaluation.baselines import by_recency
from ebnerd_lib.evaluation.evaluate import with_intervals
from ebnerd_lib.evaluation.intervals import user_bootstrap, with_interval
from ebnerd_lib.features.build import compute_features
from ebnerd_lib.features.context import feature_context
from ebnerd_lib.features.live import POOL_HOURS, pools, sample_clicked
from ebnerd_lib.features.registry import TIERS
from ebnerd_lib.training.model_file import TrainedModel

METRICS = ("ndcg@10", "hit@10", "mrr")
DEPTH = 10
RULES = {
    **{f"clicks_{window}": "clicks" for window in ("30m", "1h", "6h")},
    **{f"inviews_{window}": "exposure" for window in ("30m", "1h", "6h")},
    "newest": "content",
    "random": "ids",
}
"""Scorers without training and their tiers: what was clicked, or in view, most in so long before; newest; random."""
_COLUMNS = {rule: "age_hours" if rule == "newest" else rule for rule in RULES if rule != "random"}


@dataclass(frozen=True)
class NextClicks:
    """Where the clicked articles of n impressions stand among the live ones, by scorer."""

    live: Slates  # the impressions in order of time, each over its pool
    request: np.ndarray  # int64 (k,), which of them each click belongs to
    article_id: np.ndarray  # int32 (k,), what was clicked
    reachable: np.ndarray  # bool (k,), whether the pool has it: the article was live, and its user had not read it
    scorers: dict[str, tuple[str, str]]  # name to tier and what it was trained on, ``live``, ``logged`` or ``rule``
    ranks: dict[str, np.ndarray]  # name to float64 (k,), see ``place``
    scores: dict[str, np.ndarray]  # name of a model to float32 (m,), of every candidate

    @property
    def unreachable(self) -> float:
        """The share of clicks that no scorer can rank."""
        return float(1 - self.reachable.mean())

    def place(self, scores: np.ndarray) -> np.ndarray:
        """Return the rank of each click in its pool by scores (m,), 1 best, see ``click_ranks``; NaN if unreachable."""
        ranks = np.full(len(self.request), np.nan)
        ranks[self.reachable] = click_ranks(scores, self.live.clicked, self.live.offsets)
        return ranks

    def values(self, ranks: np.ndarray) -> np.ndarray:
        """Return the ``METRICS`` of ranks (k,), means over the clicks of each impression: float64 (n, 3).

        Of a click of rank r: 1 / log2(r + 1) and 1 where r is at most 10, else 0; and 1 / r. 0 where unreachable.
        """
        rank = np.nan_to_num(ranks, nan=np.inf)
        hit = rank <= DEPTH
        clicks = np.stack([np.where(hit, 1 / np.log2(rank + 1), 0.0), hit, 1 / rank], axis=1)
        sums = [np.bincount(self.request, weights=column, minlength=len(self.live)) for column in clicks.T]
        return np.stack(sums, axis=1) / np.bincount(self.request, minlength=len(self.live))[:, None]

    def best_rule(self, tier: str) -> str:
        """Return the rule of the highest nDCG among those that know no more than a tier, the first where they tie."""
        known = [rule for rule, own in RULES.items() if TIERS.index(own) <= TIERS.index(tier)]
        return max(known, key=lambda rule: float(self.values(self.ranks[rule])[:, 0].mean()))

    def entries(self, seed: int = 0) -> dict[str, dict[str, Any]]:
        """Return what ``metrics.json`` holds as ``next_click``: means over impressions, by scorer.

        The 95 % interval ``ndcg@10_ci`` is by bootstrap over users.
        """
        entries = {}
        for name, (tier, trained_on) in self.scorers.items():
            values = self.values(self.ranks[name])
            means = dict(zip(METRICS, values.mean(axis=0).tolist(), strict=True))
            ends = user_bootstrap(values[:, :1], self.live.user_id, seed)[0].tolist()
            about = {"tier": tier, "trained_on": trained_on, "ndcg@10_ci": ends, "impressions": len(self.live)}
            entries[name] = about | means
        return entries

    def gains(self, seed: int = 0) -> dict[str, dict[str, Any]]:
        """Return the paired difference in nDCG of each model to the best rule of the same or a lower tier.

        By name: the ``rule``, ``ndcg@10`` and its 95 % interval over users, ``ndcg@10_ci``.
        """
        found = {}
        for name in self.scores:
            rule = self.best_rule(self.scorers[name][0])
            more = self.values(self.ranks[name]) - self.values(self.ranks[rule])
            found[name] = {"rule": rule, **with_intervals(more[:, :1], self.live.user_id, seed, METRICS[:1])}
        return found

    def save(self, folder: Path) -> None:
        """Write ``next_click_<name>.parquet`` of every scorer: one row a click, with null ranks where unreachable."""
        for name, ranks in self.ranks.items():
            columns = {
                "impression_id": self.live.impression_id[self.request],
                "article_id": self.article_id,
                "pool": self.live.lengths[self.request].astype(np.int32),
                "rank": pa.array(ranks, pa.float32(), from_pandas=True),
            }
            pq.write_table(pa.table(columns), folder / f"next_click_{name}.parquet", compression="zstd")


def next_clicks(
    dataset: Dataset, models: Sequence[TrainedModel], impressions: int = 2_000, hours: float = POOL_HOURS, seed: int = 0
) -> NextClicks:
    """Rank the live articles of impressions of validation with a click, chunk by chunk, by models and by ``RULES``.

    The impressions are sampled with the seed, all if there are not so many. Whatever models were trained on, a pool,
    what was live in the ``hours`` before, is one slate.

    Raises:
        ConfigError: no impression has a click.
        StageError: a model may not see what it asks for.
    """
    validation, context = dataset.parts["validation"], feature_context(dataset)
    requests = validation.take(sample_clicked(validation, impressions, seed))
    live = pools(dataset, requests, hours, context)
    columns = {column for model in models for column in model.columns} | {*_COLUMNS.values()}
    scores = {name: np.empty(live.candidates, np.float32) for name in (*(model.name for model in models), *RULES)}
    scores["random"] = np.random.default_rng(seed).random(live.candidates, np.float32)
    for rows, slates, features in compute_features(live, context, sorted(columns)):
        own = slice(live.offsets[rows[0]], live.offsets[rows[-1] + 1])
        for model in models:
            scores[model.name][own] = model.score(dataset, slates, features.matrix, features.columns)
        for rule in _COLUMNS:
            scores[rule][own] = by_rule(rule, features.column)
    # Clicks, and what is clicked of the pools: both in order of impression and article.
    request = requests.per_candidate(np.arange(len(requests)))[requests.clicked]
    article = requests.article[requests.clicked]
    order, size = np.lexsort((article, request)), len(dataset.articles)
    found = live.per_candidate(np.arange(len(live)))[live.clicked] * size + live.article[live.clicked]
    clicks = NextClicks(
        live=live,
        request=request[order],
        article_id=requests.article_id[requests.clicked][order],
        reachable=np.isin(request[order] * size + article[order], found),
        scorers={model.name: (model.tier, model.trained_on) for model in models}
        | {rule: (tier, "rule") for rule, tier in RULES.items()},
        ranks={},
        scores={model.name: scores[model.name] for model in models},
    )
    return replace(clicks, ranks={name: clicks.place(own) for name, own in scores.items()})


def next_click_table(entries: Mapping[str, Mapping[str, Any]], gains: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Tabulate ``NextClicks.entries``, the best nDCG first, and of models ``NextClicks.gains``.

    Returns:
        One row a scorer: ``scorer``, ``tier``, ``trained on``, ``ndcg@10`` with its interval as text, ``hit@10``,
        ``mrr``; and, of a model, the difference with its interval as text, and that ``rule``.
    """
    rows = []
    for name, entry in sorted(entries.items(), key=lambda item: -item[1]["ndcg@10"]):
        row = {"scorer": name, "tier": entry["tier"], "trained on": entry["trained_on"]}
        row["ndcg@10"] = with_interval(entry["ndcg@10"], entry["ndcg@10_ci"])
        row |= {"hit@10": entry["hit@10"], "mrr": entry["mrr"], "ΔnDCG@10 vs. the best rule": "", "rule": ""}
        if own := gains.get(name):
            more = with_interval(own["ndcg@10"], own["ndcg@10_ci"], "+")
            row |= {"ΔnDCG@10 vs. the best rule": more, "rule": own["rule"]}
        rows.append(row)
    return pd.DataFrame(rows)


def by_rule(rule: str, column: Callable[[str], np.ndarray]) -> np.ndarray:
    """Return the scores (m,) of one of ``RULES`` that a column tells, given what returns columns by name."""
    values = column(_COLUMNS[rule])
    return by_recency(values) if rule == "newest" else values


def click_ranks(scores: np.ndarray, clicked: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the rank of each clicked candidate in its slate, 1 the highest score, the mean rank of ties: float64.

    Examples:
        >>> scores, clicked = np.array([3.0, 1.0, 1.0, 2.0]), np.array([False, True, False, True])
        >>> click_ranks(scores, clicked, np.array([0, 3, 4]))
        array([2.5, 1. ])
    """
    click = np.flatnonzero(clicked)
    slate = np.searchsorted(offsets, click, side="right") - 1
    others, lengths = scores[candidate_rows(offsets, slate)], np.diff(offsets)[slate]
    mine, begins = np.repeat(scores[click], lengths), np.cumsum(lengths) - lengths
    better, equal = (np.add.reduceat(each.astype(np.float64), begins) for each in (others > mine, others == mine))
    return better + (equal + 1) / 2
