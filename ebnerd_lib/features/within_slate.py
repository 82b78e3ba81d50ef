"""Places of candidates within their slate, and relations to the page being read."""

import numpy as np
from numba import njit

# mypy: disable-error-code="no-untyped-def"


@njit(cache=True, nogil=True)
def page_match(offsets, article, page, category, topic_starts, topics, vectors):
    """Compare each candidate with the page's own article, by category, topics and vector.

    Topics of article ``a`` are ``topics[topic_starts[a]:topic_starts[a + 1]]``; ``vectors`` has one unit vector an
    article, zeros where there is none, or no columns at all.

    Returns float32 (candidates, 3): 1 for the same known category, else 0; the share of the candidate's topics that
    the page's article has too, NaN where the candidate has none; the cosine of the vectors, NaN where either is
    missing. All NaN where the page is no known article, as on the front page.
    """
    out = np.full((len(article), 3), np.nan, dtype=np.float32)
    for row in range(len(page)):
        p = page[row]
        if p == 0:
            continue
        for candidate in range(offsets[row], offsets[row + 1]):
            a = article[candidate]
            if a == 0:
                continue
            out[candidate, 0] = category[a] == category[p] and category[a] > 0
            own = topic_starts[a + 1] - topic_starts[a]
            shared = 0
            for mine in range(topic_starts[a], topic_starts[a + 1]):
                for other in range(topic_starts[p], topic_starts[p + 1]):
                    shared += topics[mine] == topics[other]
            if own > 0:
                out[candidate, 1] = shared / own
            cosine = norm = other_norm = 0.0
            for d in range(vectors.shape[1]):
                cosine += vectors[a, d] * vectors[p, d]
                norm += vectors[a, d] * vectors[a, d]
                other_norm += vectors[p, d] * vectors[p, d]
            if norm > 0 and other_norm > 0:
                out[candidate, 2] = cosine / np.sqrt(norm * other_norm)
    return out


_SHORT = 64  # values of which each is faster compared with all than all are sorted


@njit(cache=True, nogil=True)
def relative(values, offsets):
    """Place a column's values within their slates.

    Returns float32 (2, candidates): the average rank scaled to 0 (lowest) to 1 (highest), ties sharing their
    mean, .5 for all in a slate of one; and the ratio to the slate's mean, 1 where that mean is 0. NaNs stay NaN and
    are left out of ranks and means.
    """
    out = np.full((2, len(values)), np.nan, dtype=np.float32)
    for row in range(len(offsets) - 1):
        own = values[offsets[row] : offsets[row + 1]]
        total, known = 0.0, 0
        for value in own:
            if not np.isnan(value):
                total += value
                known += 1
        ordered = np.sort(own) if len(own) > _SHORT else own
        for place in range(len(own)):
            value = own[place]
            if np.isnan(value):
                continue
            if len(own) > _SHORT:
                at, stop = np.searchsorted(ordered[:known], value), np.searchsorted(ordered[:known], value, "right")
            else:
                at, stop = _place(value, own)
            out[0, offsets[row] + place] = 0.5 if known == 1 else (at + stop - 1) / 2 / (known - 1)
            out[1, offsets[row] + place] = value * known / total if total != 0 else 1.0
    return out


@njit(cache=True, nogil=True)
def behind(values, offsets):
    """Return each value less the largest of its slate, at most 0: float32 (candidates,). NaNs stay NaN."""
    out = np.empty(len(values), dtype=np.float32)
    for row in range(len(offsets) - 1):
        best = np.float32(-np.inf)
        for i in range(offsets[row], offsets[row + 1]):
            if values[i] > best:
                best = values[i]
        for i in range(offsets[row], offsets[row + 1]):
            out[i] = values[i] - best if not np.isnan(values[i]) else np.nan
    return out


@njit(cache=True, nogil=True)
def _place(value, values):
    """Return how many values are smaller, and how many are not larger."""
    at = stop = np.int32(0)
    for other in values:
        at += np.int32(other < value)
        stop += np.int32(other <= value)
    return at, stop
