"""Defects 1, 6, 9 and 13: what the original's training moves, minimises and remembers."""

import numpy as np

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.evaluation.audit.finding import Finding
from ebnerd_lib.evaluation.audit.intended import Intended
from ebnerd_lib.evaluation.audit.replica import Replica, Rows
from ebnerd_lib.evaluation.audit.scores import auc


def audit_article_side(
    dataset: Dataset, factorisation: Replica, perceptron: Replica, mf: Intended, mlp: Intended
) -> list[Finding]:
    """Count the article vectors that training reaches, and rank the validation slates by them.

    The mended models have a vector for each article that training shows and one for all others, so none is left as
    it was drawn.
    """
    slates = dataset.parts["validation"]
    own = (
        factorisation.users[slates.per_candidate(slates.user)].astype(np.float64)
        * factorisation.articles[slates.article]
    ).sum(axis=1)
    size = len(factorisation.articles)
    return [
        Finding(1, "article vectors that training moves", len(factorisation.moved), len(mf.moved)),
        Finding(
            1,
            "share of the article table that training moves",
            len(factorisation.moved) / size,
            len(mf.moved) / mf.articles,
        ),
        Finding(1, "AUC of its vectors on the candidates", auc(own, slates), auc(mf.scores["validation"], slates)),
        Finding(
            13,
            "share of the perceptron's article table never trained",
            1 - len(perceptron.moved) / size,
            1 - len(mlp.moved) / mlp.articles,
        ),
    ]


def audit_loss(dataset: Dataset, factorisation: Replica, train: Rows, mf: Intended) -> list[Finding]:
    """Compare the loss reached with what a scorer reaches that knows no article.

    For the original that is the entropy of the click rate, since its loss is the logistic loss of the label given the
    user; for the softmax over a slate it is the logarithm of the slate's length, the mean over clicks.
    """
    rate = float(train.feed.label.mean())
    entropy = -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate)) if 0 < rate < 1 else float("nan")
    difference = factorisation.users[np.unique(train.feed.user)].astype(np.float64) @ (
        factorisation.articles[0] - factorisation.articles[1]
    )
    slates = dataset.parts["train"]
    lengths = slates.per_candidate(slates.lengths)[slates.clicked]
    return [
        Finding(6, "articles that the loss compares, mean", 2.0, float(slates.lengths.mean())),
        Finding(
            6,
            "loss over that of knowing the click rate alone",
            float(factorisation.loss[-1] / entropy),
            float(mf.fit.curve["train/loss"].iloc[-1] / np.log(lengths).mean()),
        ),
        Finding(6, "share of users for whom article 0 beats article 1", float((difference > 0).mean()), float("nan")),
    ]


def audit_memory(factorisation: Replica) -> list[Finding]:
    """Show the training list's length at the end, and how far its mean is from the last epoch's own."""
    figures = factorisation.train_auroc
    return [
        Finding(9, "training figures in memory after the last epoch", figures.size, figures.shape[1]),
        Finding(9, "last training AUROC reported", float(figures.mean()), float(figures[-1].mean())),
    ]
