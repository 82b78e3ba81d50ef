"""The space in which articles are near or far: their vectors, or what the table says of them."""

from dataclasses import dataclass

import numpy as np

from ebnerd_lib.data.dataset import Dataset, Metadata


@dataclass(frozen=True)
class ArticleSpace:
    """Where each article lies.

    Attributes:
        name: what the vectors are made of, for captions.
        vectors: float32 (articles, size), of length 1, zeros for an article of which nothing is known.
    """

    name: str
    vectors: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """Which articles have a place: bool (articles,)."""
        return np.asarray(self.vectors.any(axis=1))


def article_space(dataset: Dataset) -> ArticleSpace:
    """Return the bundle's article vectors, or, where it has none, categories and topics."""
    if dataset.vectors is not None and dataset.vectors.any():
        return ArticleSpace("article vectors", dataset.vectors)
    return ArticleSpace("categories and topics", category_vectors(dataset.metadata))


def category_vectors(metadata: Metadata) -> np.ndarray:
    """Describe each article by its category and its topics: float32 (articles, categories + topics), of length 1.

    One column a category and one a topic, those that the article has sharing one weight for the category and
    one for all topics. The cosine of two articles that have both is the mean of 1 for the same category, 0
    for another, and of the cosine of their sets of topics. Zeros where neither is known.
    """
    articles, topics = len(metadata.category), metadata.topic_count
    categories = int(metadata.category.max(initial=0))
    category = np.zeros((articles, categories), np.float32)
    known = np.flatnonzero(metadata.category > 0)
    category[known, metadata.category[known] - 1] = 1.0
    topic = np.zeros((articles, topics), np.float32)
    owner = np.repeat(np.arange(articles), np.diff(metadata.topic_starts))
    topic[owner, metadata.topics] = 1.0
    return _unit(np.concatenate([category, _unit(topic)], axis=1))


def _unit(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
