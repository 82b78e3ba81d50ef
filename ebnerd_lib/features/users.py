"""What is known of a user before a time: the impressions of the log, and what was clicked in it and in histories."""

# mypy: disable-error-code="no-untyped-def"

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit

from ebnerd_lib.data.dataset import Metadata
from ebnerd_lib.data.slates import HOUR, Slates, large_zeros, lists_of


@dataclass(frozen=True)
class UserEvents:
    """Impressions per user in order of time; user ``u`` has the places ``offsets[u]:offsets[u + 1]`` of the others."""

    offsets: np.ndarray  # int64 (users + 1,); the unknown user has none
    row: np.ndarray  # int64 (n,), rows of the log
    time: np.ndarray  # int64 (n,), microseconds
    session: np.ndarray  # int64 (n,)
    slates: np.ndarray  # int64 (n + 1,), where the candidates of each begin in ``article`` and ``clicked``
    article: np.ndarray  # int32 (m,), candidates, one user's after the other
    clicked: np.ndarray  # bool (m,)


def user_events(log: Slates, users: int) -> UserEvents:
    """Index a log in order of time by user. Impressions of the unknown user (index 0) belong to no user."""
    order = np.argsort(log.user, kind="stable")
    counts = np.bincount(log.user, minlength=users)
    known = order[counts[0] :]
    counts[0] = 0
    return UserEvents(
        offsets=np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        row=known,
        time=log.time[known],
        session=log.session[known],
        slates=np.concatenate(([0], np.cumsum(log.lengths[known]))).astype(np.int64),
        article=lists_of(log.article, log.offsets, known),
        clicked=lists_of(log.clicked, log.offsets, known),
    )


class About(NamedTuple):
    """What kernels need to know of articles, and what profiles of users are made of.

    A **profile** sums up clicks, a user's so far, in a row of float32: their number; of those with a known sentiment,
    and the sums of their three shares; clicks by category; clicks by topic; the sum of the articles' vectors.
    """

    first: np.ndarray  # int64 (4,), where counts by category, by topic and the vector begin in a profile, and its end
    category: np.ndarray  # as in ``Metadata``, and so are the next four
    sentiment: np.ndarray
    topic_starts: np.ndarray
    topics: np.ndarray
    vectors: np.ndarray
    norms: np.ndarray  # float32 (articles,), lengths of the vectors

    @classmethod
    def of(cls, meta: Metadata) -> "About":
        """Return what the articles table says."""
        first = np.cumsum([5, meta.category.max(initial=0) + 1, meta.topic_count, meta.vectors.shape[1]])
        norms = np.sqrt(np.einsum("ad,ad->a", meta.vectors, meta.vectors, dtype=np.float64)).astype(np.float32)
        return cls(first, meta.category, meta.sentiment, meta.topic_starts, meta.topics, meta.vectors, norms)

    def profiles(self, users: int) -> np.ndarray:
        """Return profiles without clicks: float32 (users, size)."""
        return large_zeros((users, int(self.first[3])), np.float32)


@njit(cache=True, nogil=True)
def user_past(users, time, session, offsets, article, starts, own_time, own_session, own_slates, own_article,
              own_clicked, articles):  # fmt: skip
    """What a user saw and clicked of each candidate before, for queries sorted by user, then time.

    The past of a user is walked over once for each run of its queries, and looked at for their candidates alone.

    Returns float32 (candidates, 6), all strictly before the query's time: times shown, times clicked, hours since
    last shown and last clicked (NaN if never), times shown in this session, and the same if not clicked in it.
    """
    out = np.zeros((len(article), 6), dtype=np.float32)
    wanted = np.zeros(articles, dtype=np.bool_)  # what follows holds only for articles that the user's queries have
    shown, clicked = np.empty(articles, np.int32), np.empty(articles, np.int32)
    last_shown, last_clicked = np.empty(articles, np.int64), np.empty(articles, np.int64)
    in_session, clicked_in_session = np.empty(articles, np.int32), np.empty(articles, np.int32)
    latest_session = np.empty(articles, np.int64)
    begin = 0
    while begin < len(users):
        u, end = users[begin], begin + 1
        # A step back in time starts over: weeks that overlap must not hand a user its own future.
        while end < len(users) and users[end] == u and time[end - 1] <= time[end]:
            end += 1
        for candidate in range(offsets[begin], offsets[end]):
            a = article[candidate]
            wanted[a] = True
            shown[a] = clicked[a] = in_session[a] = clicked_in_session[a] = 0
        at = starts[u]
        for query in range(begin, end):
            while at < starts[u + 1] and own_time[at] < time[query]:
                for c in range(own_slates[at], own_slates[at + 1]):
                    a = own_article[c]
                    if not wanted[a]:
                        continue
                    if in_session[a] == 0 or latest_session[a] != own_session[at]:
                        in_session[a] = clicked_in_session[a] = 0
                        latest_session[a] = own_session[at]
                    in_session[a] += 1
                    shown[a] += 1
                    last_shown[a] = own_time[at]
                    if own_clicked[c]:
                        clicked_in_session[a] += 1
                        clicked[a] += 1
                        last_clicked[a] = own_time[at]
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
        for candidate in range(offsets[begin], offsets[end]):
            wanted[article[candidate]] = False
        begin = end
    return out


@njit(cache=True, nogil=True)
def history_past(users, week, time, offsets, article, number, starts, clicks, click_time, about, profiles, out):
    """How a candidate relates to the history of its user before the week ``number``, for the queries of that week.

    ``starts[u]`` to ``starts[u + 1]`` are the ``clicks`` of user ``u``, in order of time; ``profiles[u]``
    becomes the user's profile after all of them. What is not strictly before the query's time is left out.

    Fills float32 (candidates, 6): clicks on the article; share of its category among the clicks; match of its
    sentiment, of its topics and of its vector, see ``_match``; and the number of clicks.
    """
    slot = np.full(len(about.category), -1, dtype=np.int64)
    some = np.empty(profiles.shape[1], dtype=np.float32)
    for query in range(len(users)):
        if week[query] != number:
            continue
        u = users[query]
        begin, end = starts[u], starts[u + 1]
        own = profiles[u]
        if end > begin and click_time[end - 1] >= time[query]:
            some[:] = 0.0
            own, end = some, begin
            while click_time[end] < time[query]:
                _add(own, clicks[end], about)
                end += 1
        elif own[0] == 0:
            for click in range(begin, end):
                _add(own, clicks[click], about)
        length = np.sqrt(_dot(own[about.first[2] :], own[about.first[2] :]))
        for candidate in range(offsets[query], offsets[query + 1]):
            a = article[candidate]
            slot[a] = candidate
            out[candidate, 0] = 0.0
            out[candidate, 1], out[candidate, 2], out[candidate, 3], out[candidate, 4] = _match(own, length, a, about)
            out[candidate, 5] = own[0]
        for click in range(begin, end):
            candidate = slot[clicks[click]]
            if candidate >= 0 and clicks[click] > 0:
                out[candidate, 0] += 1.0
        for candidate in range(offsets[query], offsets[query + 1]):
            slot[article[candidate]] = -1


@njit(cache=True, nogil=True)
def own_past(users, time, offsets, article, log_time, log_offsets, log_article, log_clicked, log_user, about, at,
             impressions, shown, profiles, out):  # fmt: skip
    """How a candidate relates to what its user did in the log, for queries in order of time.

    ``profiles``, ``impressions`` and ``shown`` (candidates) are by user and move along the log with the queries:
    ``at[0]`` is the first impression that is not in them.

    Fills float32 (candidates, 6), all strictly before the query's time: the user's impressions so far; clicks a
    candidate shown so far (NaN before the first); the share of the candidate's category among the user's clicks so
    far (NaN before the first); and the match of its sentiment, topics and vector with them, see ``_match``.
    """
    for query in range(len(users)):
        while at[0] < len(log_time) and log_time[at[0]] < time[query]:
            row = at[0]
            u = log_user[row]
            if u > 0:
                impressions[u] += 1
                shown[u] += log_offsets[row + 1] - log_offsets[row]
                for c in range(log_offsets[row], log_offsets[row + 1]):
                    if log_clicked[c]:
                        _add(profiles[u], log_article[c], about)
            at[0] += 1
        u = users[query]
        own = profiles[u]
        length = np.sqrt(_dot(own[about.first[2] :], own[about.first[2] :]))
        for candidate in range(offsets[query], offsets[query + 1]):
            a = article[candidate]
            out[candidate, 0] = impressions[u]
            out[candidate, 1] = own[0] / shown[u] if shown[u] > 0 else np.nan
            share, out[candidate, 3], out[candidate, 4], out[candidate, 5] = _match(own, length, a, about)
            out[candidate, 2] = share if own[0] > 0 else np.nan


@njit(cache=True, nogil=True)
def _add(profile, a, about):
    """Add a click to a profile."""
    profile[0] += 1
    if not np.isnan(about.sentiment[a, 0]):
        profile[1] += 1
        for share in range(3):
            profile[2 + share] += about.sentiment[a, share]
    profile[about.first[0] + about.category[a]] += 1
    for place in range(about.topic_starts[a], about.topic_starts[a + 1]):
        profile[about.first[1] + about.topics[place]] += 1
    for d in range(about.vectors.shape[1]):
        profile[about.first[2] + d] += about.vectors[a, d]


@njit(cache=True, nogil=True)
def _match(profile, length, a, about):
    """Compare an article with a profile whose vector has a length.

    Returns the share of the article's category among the clicks (0 without either: category 0 is unknown, and sharing
    it says nothing), the dot product of its sentiment shares with the mean of the clicks' (NaN where unknown), the mean
    share of its topics among the clicks (NaN without topics or clicks), and the cosine of its vector with the sum of
    the clicks' (NaN without either).
    """
    category, alike = about.category[a], np.float32(0.0)
    if profile[0] > 0 and category > 0:
        alike = profile[about.first[0] + category] / profile[0]
    mood = shared = cosine = np.float32(np.nan)
    if profile[1] > 0 and not np.isnan(about.sentiment[a, 0]):
        mood = np.float32(0.0)
        for share in range(3):
            mood += profile[2 + share] / profile[1] * about.sentiment[a, share]
    own = about.topic_starts[a + 1] - about.topic_starts[a]
    if own > 0 and profile[0] > 0:
        total = np.float32(0.0)
        for place in range(about.topic_starts[a], about.topic_starts[a + 1]):
            total += profile[about.first[1] + about.topics[place]]
        shared = total / (own * profile[0])
    if length > 0 and a > 0 and about.norms[a] > 0:
        cosine = _dot(profile[about.first[2] :], about.vectors[a]) / (length * about.norms[a])
    return alike, mood, shared, cosine


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _dot(left, right):
    """Return the dot product of two vectors, in an order of summation that suits the processor."""
    total = np.float32(0.0)
    for d in range(len(left)):
        total += left[d] * right[d]
    return total
