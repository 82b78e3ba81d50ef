"""What is known of a user before a time: the impressions of the log, and the history of the week."""

# mypy: disable-error-code="no-untyped-def"

from dataclasses import dataclass

import numpy as np
from numba import njit

from ebnerd_lib.data.slates import HOUR, Slates

SEEN = 9
"""Columns of ``user_past``."""


@dataclass(frozen=True)
class UserEvents:
    """Impressions per user in order of time: user ``u`` has ``row[offsets[u]:offsets[u + 1]]``, rows of the log."""

    offsets: np.ndarray
    row: np.ndarray


def user_events(log: Slates, users: int) -> UserEvents:
    """Index a log by user. Impressions of the unknown user (index 0) are nobody's past."""
    order = np.lexsort((log.time, log.user))
    counts = np.bincount(log.user, minlength=users)
    known = order[counts[0] :]
    counts[0] = 0
    return UserEvents(np.concatenate(([0], np.cumsum(counts))).astype(np.int64), known)


@njit(cache=True, nogil=True)
def user_past(users, time, session, offsets, article, starts, rows, log_time, log_session, log_offsets, log_article,
              log_clicked, category, categories):  # fmt: skip
    """What a user saw and clicked before each query, for queries sorted by user, then time.

    Returns float32 (candidates, 9), all strictly before the query's time: times shown, times clicked, hours since
    last shown and last clicked (NaN if never), times shown and passed over in this session, the user's
    impressions so far, clicks a candidate shown so far (NaN before the first), and the share of the candidate's
    category among the user's clicks so far (NaN before the first).
    """
    articles = len(category)
    out = np.zeros((len(article), SEEN), dtype=np.float32)
    shown = np.zeros(articles, dtype=np.int32)
    clicked = np.zeros(articles, dtype=np.int32)
    last_shown = np.zeros(articles, dtype=np.int64)
    last_clicked = np.zeros(articles, dtype=np.int64)
    in_session = np.zeros(articles, dtype=np.int32)
    clicked_in_session = np.zeros(articles, dtype=np.int32)
    latest_session = np.zeros(articles, dtype=np.int64)
    of_category = np.zeros(categories, dtype=np.int32)
    candidates = clicks = at = 0
    for query in range(len(users)):
        u = users[query]
        # A step back in time starts over too: weeks that overlap must not hand a user its own future.
        if query == 0 or users[query - 1] != u or time[query - 1] > time[query]:
            if query > 0:
                for done in range(starts[users[query - 1]], at):
                    for c in range(log_offsets[rows[done]], log_offsets[rows[done] + 1]):
                        a = log_article[c]
                        shown[a] = clicked[a] = in_session[a] = clicked_in_session[a] = 0
            of_category[:] = 0
            candidates = clicks = 0
            at = starts[u]
        while at < starts[u + 1] and log_time[rows[at]] < time[query]:
            row = rows[at]
            for c in range(log_offsets[row], log_offsets[row + 1]):
                a = log_article[c]
                if in_session[a] == 0 or latest_session[a] != log_session[row]:
                    in_session[a] = clicked_in_session[a] = 0
                    latest_session[a] = log_session[row]
                in_session[a] += 1
                shown[a] += 1
                last_shown[a] = log_time[row]
                candidates += 1
                if log_clicked[c]:
                    clicked_in_session[a] += 1
                    clicked[a] += 1
                    last_clicked[a] = log_time[row]
                    clicks += 1
                    of_category[category[a]] += 1
            at += 1
        for candidate in range(offsets[query], offsets[query + 1]):
            a = article[candidate]
            known = a > 0 and shown[a] > 0
            here = known and latest_session[a] == session[query]
            out[candidate, 0] = shown[a] if known else 0
            out[candidate, 1] = clicked[a] if known else 0
            out[candidate, 2] = (time[query] - last_shown[a]) / HOUR if known else np.nan
            out[candidate, 3] = (time[query] - last_clicked[a]) / HOUR if known and clicked[a] > 0 else np.nan
            out[candidate, 4] = in_session[a] if here else 0
            out[candidate, 5] = in_session[a] if here and clicked_in_session[a] == 0 else 0
            out[candidate, 6] = at - starts[u]
            out[candidate, 7] = clicks / candidates if candidates > 0 else np.nan
            # Category 0 is unknown: sharing it says nothing.
            share = of_category[category[a]] / clicks if clicks > 0 and category[a] > 0 else 0.0
            out[candidate, 8] = share if clicks > 0 else np.nan
    return out


@njit(cache=True, nogil=True)
def history_past(users, week, time, offsets, article, starts, history_article, history_time, category, sentiment,
                 topic_starts, topics, vectors, categories, topic_count):  # fmt: skip
    """How a candidate relates to the history of its user, for queries sorted by week, user, then time.

    ``starts[w, u]`` to ``starts[w, u + 1]`` are the clicks of user ``u`` before the week ``w``; topics of article
    ``a`` are ``topics[topic_starts[a]:topic_starts[a + 1]]``; ``vectors`` has one unit vector an article, zeros
    where there is none, or no columns at all.

    Returns float32 (candidates, 6), all strictly before the query's time: clicks on the article, share of its
    category among the clicks, match of its sentiment (the dot product of its three shares with the mean of the
    clicks'; NaN where unknown), mean share of its topics among the clicks (NaN without topics), cosine of its
    vector with the sum of the clicks' vectors (NaN without), and the number of clicks.
    """
    articles, size = len(category), vectors.shape[1]
    out = np.zeros((len(article), 6), dtype=np.float32)
    of_article = np.zeros(articles, dtype=np.int32)
    of_category = np.zeros(categories, dtype=np.int32)
    of_topic = np.zeros(topic_count, dtype=np.int32)
    mood = np.zeros(3)
    taste = np.zeros(size)
    with_mood = at = 0
    for query in range(len(users)):
        u, w = users[query], week[query]
        if query == 0 or users[query - 1] != u or week[query - 1] != w:
            if query > 0:
                for done in range(starts[week[query - 1], users[query - 1]], at):
                    of_article[history_article[done]] = 0
            of_category[:] = 0
            of_topic[:] = 0
            mood[:] = 0.0
            taste[:] = 0.0
            with_mood = 0
            at = starts[w, u]
        while at < starts[w, u + 1] and history_time[at] < time[query]:
            a = history_article[at]
            of_article[a] += 1
            of_category[category[a]] += 1
            for place in range(topic_starts[a], topic_starts[a + 1]):
                of_topic[topics[place]] += 1
            for d in range(size):
                taste[d] += vectors[a, d]
            if not np.isnan(sentiment[a, 0]):
                with_mood += 1
                for s in range(3):
                    mood[s] += sentiment[a, s]
            at += 1
        clicks = at - starts[w, u]
        length = 0.0
        for d in range(size):
            length += taste[d] * taste[d]
        length = np.sqrt(length)
        for candidate in range(offsets[query], offsets[query + 1]):
            a = article[candidate]
            out[candidate, 0] = of_article[a] if a > 0 else 0
            # Category 0 is unknown: sharing it says nothing.
            out[candidate, 1] = of_category[category[a]] / clicks if clicks > 0 and category[a] > 0 else 0.0
            out[candidate, 2] = out[candidate, 3] = out[candidate, 4] = np.nan
            if with_mood > 0 and not np.isnan(sentiment[a, 0]):
                match = 0.0
                for s in range(3):
                    match += mood[s] / with_mood * sentiment[a, s]
                out[candidate, 2] = match
            own = topic_starts[a + 1] - topic_starts[a]
            if own > 0 and clicks > 0:
                shared = 0
                for place in range(topic_starts[a], topic_starts[a + 1]):
                    shared += of_topic[topics[place]]
                out[candidate, 3] = shared / (own * clicks)
            if length > 0 and a > 0:
                cosine = norm = 0.0
                for d in range(size):
                    cosine += taste[d] * vectors[a, d]
                    norm += vectors[a, d] * vectors[a, d]
                if norm > 0:
                    out[candidate, 4] = cosine / (length * np.sqrt(norm))
            out[candidate, 5] = clicks
    return out
