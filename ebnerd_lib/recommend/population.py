"""Lists of many users."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.schema import SENTIMENT_LABELS
from ebnerd_lib.data.slates import HOUR
from ebnerd_lib.evaluation import diversity
from ebnerd_lib.evaluation.baselines import click_counts
from ebnerd_lib.evaluation.diversity import ArticleSpace
from ebnerd_lib.recommend.lists import articles_of
from ebnerd_lib.recommend.next_click import RULES, by_rule
from ebnerd_lib.recommend.requests import Requests, shown_between

NO_CATEGORY = "unknown"
WEEK = 7 * 24 * HOUR


@dataclass(frozen=True)
class Lists:
    """The lists of one scorer, of an information tier, for all users: candidates as ``pick`` returns them."""

    name: str
    tier: str
    picked: np.ndarray


def rules(requests: Requests, seed: int) -> dict[str, tuple[str, np.ndarray]]:
    """Return scorers without training: name to information tier and scores (m,).

    ``clicks_1h`` is the clicks of the hour before; ``newest`` puts articles without a time of publication last;
    ``random`` is sampled with the seed, for each user anew.
    """
    found = {rule: (RULES[rule], by_rule(rule, requests.column)) for rule in ("clicks_1h", "newest")}
    return found | {"random": (RULES["random"], np.random.default_rng(seed).random(len(requests.matrix)))}


def beyond_table(
    dataset: Dataset, requests: Requests, lists: list[Lists], space: ArticleSpace, seed: int
) -> pd.DataFrame:
    """Describe the lists of each scorer, the mean over users with 95 % intervals.

    Returns:
        One row a scorer: ``list``, ``tier``; the mean over users, its interval (``…_ci``, [low, high]) and the number
        of users with a value (``…_users``) of ``diversity``, ``serendipity``, ``novelty`` (bits, by clicks of the
        train week) and ``novelty_week`` (by those of the seven days before the moment); ``unclicked``, the share of
        recommendations without a click in the train week; ``without_vector``, how many have no place in ``space`` and
        are left out of distances; ``coverage``, how many articles there are, and ``coverage_share`` of the pool.
    """
    time, log = int(requests.slates.time[0]), dataset.log
    clicks = click_counts([dataset.parts["train"], dataset.parts["tuning"]], len(dataset.articles))
    recent = click_counts([log.take((log.time >= time - WEEK) & (log.time < time))], len(clicks))
    rows = []
    for own in lists:
        articles = articles_of(requests, own.picked)
        values = {
            "diversity": diversity.intralist_diversity(articles, space.vectors),
            "serendipity": diversity.serendipity(articles, requests.read_offsets, requests.read, space.vectors),
            "novelty": diversity.mean_over_list(articles, diversity.self_information(clicks)),
            "novelty_week": diversity.mean_over_list(articles, diversity.self_information(recent)),
        }
        given = articles[articles >= 0]
        covered = len(np.unique(given))
        row: dict[str, Any] = {"list": own.name, "tier": own.tier}
        for name, value in values.items():
            mean, low, high, users = diversity.mean_interval(value, seed=seed)
            row |= {name: mean, f"{name}_ci": [low, high] if users else None, f"{name}_users": users}
        row["unclicked"] = float((clicks[given] == 0).mean())
        row["without_vector"] = int((~space.known[given]).sum())
        rows.append(row | {"coverage": covered, "coverage_share": covered / len(requests.pool)})
    return pd.DataFrame(rows)


def distribution_table(
    dataset: Dataset, requests: Requests, lists: list[Lists], time: int, hours: float
) -> pd.DataFrame:
    """Return of what kinds the recommended articles are, vs. what was shown to everybody in the hours before.

    Returns:
        One row a category, largest share shown first, then one a sentiment: ``kind`` (category or sentiment),
        ``value``, and the shares of ``shown`` and of each scorer's lists, an article counted as often as it occurs.
        Shares of categories, the unknown one among them, add up to 1; sentiments are means of the articles' shares,
        articles without any left out.
    """
    shown = shown_between(dataset, time, hours)
    columns = {"shown": shown[shown > 0]}
    columns |= {own.name: articles_of(requests, own.picked).ravel() for own in lists}
    code = dataset.metadata.category
    names = [NO_CATEGORY, *(str(name) for name in _category_names(dataset))]
    category = pd.DataFrame(
        {name: diversity.class_shares(articles, code, len(names)) for name, articles in columns.items()}
    )
    category.insert(0, "value", names)
    category = category[category[list(columns)].gt(0).any(axis=1)]
    category = category.sort_values("shown", ascending=False, kind="stable")
    mood = pd.DataFrame({name: _mood(dataset.metadata.sentiment, articles) for name, articles in columns.items()})
    mood.insert(0, "value", [label.lower() for label in SENTIMENT_LABELS])
    table = pd.concat([category.assign(kind="category"), mood.assign(kind="sentiment")], ignore_index=True)
    return table[["kind", "value", *columns]]


def _category_names(dataset: Dataset) -> list[str]:
    """Return the name of each category in the order of ``Metadata.category``, from 1."""
    table = dataset.articles[["category", "category_str"]].dropna(subset=["category"])
    first = table.drop_duplicates("category").sort_values("category")
    return first["category_str"].fillna(first["category"].astype(str)).tolist()


def _mood(sentiment: np.ndarray, articles: np.ndarray) -> np.ndarray:
    """Return the mean sentiment shares of articles: float64 (3,), NaN where none has any."""
    own = sentiment[articles[articles >= 0]].astype(np.float64)
    own = own[~np.isnan(own[:, 0])]
    return own.mean(axis=0) if len(own) else np.full(sentiment.shape[1], np.nan)
