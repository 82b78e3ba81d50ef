"""Bayesian personalised ranking by ``implicit``: users and articles from clicks, negatives drawn by itself."""

from dataclasses import dataclass

import numpy as np
from implicit.cpu.bpr import BayesianPersonalizedRanking
from scipy.sparse import csr_matrix

from ebnerd_lib.data.slates import Slates


def clicks(slates: Slates, users: int, articles: int) -> csr_matrix:
    """Return who clicked what in some slates: float32 (users, articles), index 0 the unknown, which nobody is."""
    user, article = slates.per_candidate(slates.user)[slates.clicked], slates.article[slates.clicked]
    found = csr_matrix((np.ones(len(user), np.float32), (user, article)), shape=(users, articles))
    found.data[:] = 1
    return found


@dataclass
class Bpr:
    """A factorisation that is trained some epochs at a time.

    Attributes:
        factors: length of the vectors; a bias of the article comes on top.
        learning_rate: of its gradient steps.
        regularization: of vectors and biases.
        seed: of weights and draws.
    """

    factors: int = 16
    learning_rate: float = 0.05
    regularization: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        self._model = BayesianPersonalizedRanking(
            factors=self.factors, learning_rate=self.learning_rate, regularization=self.regularization,
            random_state=np.random.default_rng(self.seed), num_threads=1,
        )  # fmt: skip

    def fit(self, matrix: csr_matrix, epochs: int) -> None:
        """Train on; one epoch draws as many clicks as there are."""
        self._model.iterations = epochs
        self._model.fit(matrix, show_progress=False)

    def score(self, slates: Slates) -> np.ndarray:
        """Score every candidate: float32 (m,). Users and articles without a click count as zero vectors."""
        user, article = self._model.user_factors, self._model.item_factors
        return np.einsum("ij,ij->i", user[slates.per_candidate(slates.user)], article[slates.article])
