"""Defects 11, 12 and 16: what becomes of a ranking on its way through indices and a filter of the catalogue."""

import numpy as np

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import HOUR
from ebnerd_lib.data.vocabulary import Vocabulary
from ebnerd_lib.evaluation.audit.finding import Finding
from ebnerd_lib.evaluation.audit.replica import Replica

LIVE_HOURS = 48.0


def best(scores: np.ndarray, k: int) -> np.ndarray:
    """Return the positions of the k best scores of each row, best first, ties by position: int64 (rows, k).

    >>> best(np.array([[1.0, 3.0, 2.0]]), 2)
    array([[1, 2]])
    """
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def looked_up(positions: np.ndarray) -> np.ndarray:
    """Return the indices that the original looks up for positions in its list of scores, as they are listed.

    Scores are of the indices 1, 2, …, so position p belongs to index p + 1; the original takes p for the index, where
    0 is none. The catalogue is then filtered, which lists what was found by its index.

    >>> looked_up(np.array([[4, 0, 2]]))
    array([[0, 2, 4]])
    """
    return np.sort(positions, axis=1)


def rank_correlation(listed: np.ndarray, ranked: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation of the order of listed items with the order they were ranked in: float64 (rows,).

    Args:
        listed: (rows, k), the items as listed.
        ranked: (rows, k), the same items, best first.

    Examples:
        >>> rank_correlation(np.array([[1, 2, 3]]), np.array([[3, 2, 1]]))
        array([-1.])
    """
    k = listed.shape[1]
    rank = np.argmax(listed[:, :, None] == ranked[:, None, :], axis=2)
    distance = ((rank - np.arange(k)) ** 2).sum(axis=1)
    return 1 - 6 * distance / (k * (k * k - 1))


def share_noticed(ids: np.ndarray, index: dict[int, int], back: dict[int, int]) -> float:
    """Return the share of ids that do not come back from their index: the chance that a check of one id notices.

    >>> share_noticed(np.array([7, 8, 9]), {7: 1, 8: 2, 9: 3}, {1: 8, 2: 7, 3: 9})
    0.6666666666666666
    """
    return float(np.mean([back[index[int(one)]] != int(one) for one in ids]))


def audit_lists(dataset: Dataset, model: Replica, users: int, k: int, seed: int) -> list[Finding]:
    """Follow the k best articles of some users through the original's code, and through the right one.

    Args:
        dataset: the log says which articles are live at its end.
        model: its vectors rank the catalogue.
        users: how many users, drawn by seed.
        k: articles a list.
        seed: of the draw.
    """
    rows = np.random.default_rng(seed).choice(np.arange(1, len(model.users)), min(users, len(model.users) - 1), False)
    # Factors of different users are compared in no sum, so the order in which float64 adds them is all that counts.
    scores = np.einsum("uf,af->ua", model.users[rows].astype(np.float64), model.articles[1:].astype(np.float64))
    right = best(scores, k) + 1
    listed = looked_up(best(scores, k))
    live = _live(dataset)
    pool = np.flatnonzero(live)
    live_best = pool[best(scores[:, pool - 1], k)]
    wrong = (listed[:, :, None] != right[:, None, :]).all(axis=2).sum(axis=1)
    return [
        *_audit_user_ids(dataset),
        Finding(11, f"wrong articles among {k} recommended, mean", float(wrong.mean()), 0.0),
        Finding(
            12, "rank correlation of the list with the scores, mean",
            float(rank_correlation(listed + 1, right).mean()), float(rank_correlation(right, right).mean()),
        ),
        Finding(
            12, f"share recommended that was in view in the last {LIVE_HOURS:.0f} h",
            float(live[listed].mean()), float(live[live_best].mean()),
        ),
        Finding(12, "articles to choose from", len(dataset.articles) - 1, len(pool)),
    ]  # fmt: skip


def audit_mapping(dataset: Dataset) -> list[Finding]:
    """Swap two articles in a mapping, one way only, and ask whom a check would tell.

    The chance of a check of one article, drawn at random, is counted over all articles it may draw.
    """
    ids = dataset.articles["article_id"].to_numpy()[1:]
    index = {int(one): place for place, one in enumerate(ids, 1)}
    back = {place: one for one, place in index.items()}
    back[1], back[2] = back[2], back[1]
    chance = share_noticed(ids, index, back)
    return [
        Finding(16, "articles that a check covers", 1, Vocabulary(ids).check_both_ways()),
        Finding(16, "chance that it notices two articles swapped", chance, float(chance > 0)),
    ]


def _audit_user_ids(dataset: Dataset) -> list[Finding]:
    """Take raw ids for indices, as the original does, and through the mapping."""
    ids = dataset.users["user_id"].to_numpy()[1:].astype(np.int64)
    vocabulary = Vocabulary(ids)
    mapped = vocabulary.index_of(ids)
    return [
        Finding(
            11,
            "share of users whose id lies beyond the table",
            float((ids > len(ids)).mean()),
            float((mapped > len(ids)).mean()),
        ),
        Finding(
            11,
            "share of users that meet their own vector",
            float((ids == mapped).mean()),
            float((vocabulary.id_of(mapped) == ids).mean()),
        ),
    ]


def _live(dataset: Dataset) -> np.ndarray:
    """Say which articles were in view at the end of the log: bool (articles,)."""
    log = dataset.log
    late = log.per_candidate(log.time >= log.time.max() - int(LIVE_HOURS * HOUR))
    live = np.zeros(len(dataset.articles), bool)
    live[log.article[late]] = True
    live[0] = False
    return live
