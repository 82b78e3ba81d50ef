"""How candidates relate to the article of the page that is being read."""

# mypy: disable-error-code="no-untyped-def"

import numpy as np
from numba import njit


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
