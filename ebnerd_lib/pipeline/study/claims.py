"""Claims, and how they are held against figures."""

import statistics
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ebnerd_lib.evaluation import reference
from ebnerd_lib.pipeline.study.differences import Interval, step
from ebnerd_lib.pipeline.study.profile import MAIN, Model

VERDICTS = {True: "met", False: "not met", None: "not tried"}


@dataclass(frozen=True)
class Claim:
    """Scorers that should come in this order, worst first, on every bundle.

    Attributes:
        text: the claim as the report words it.
        order: names of scorers.
        least: AUC by which each must at least lie above the one before it; below 0 it may fall behind by so much.
        strict: whether it must lie above ``least`` and not just reach it.
    """

    text: str
    order: tuple[str, ...]
    least: float = 0.0
    strict: bool = False


def claims(models: list[Model]) -> list[Claim]:
    """Return what a study of these models holds against its figures."""
    return [
        Claim(f"{MAIN} ≥ {reference.NAME} − .002", (reference.NAME, MAIN), least=-0.002),
        Claim(
            "ids < content < exposure < clicks", ("mf_ids", f"{MAIN}_content", f"{MAIN}_exposure", MAIN), strict=True
        ),
        *(Claim(f"{m.name} learning on ≥ static", (m.name, f"{m.name}_learning")) for m in models),
        Claim("mf_ids learning on ≥ static + .12", ("mf_ids", "mf_ids_learning"), least=0.12),
    ]


def check(claim: Claim, auc: dict[str, dict[int, float]], seeds: list[int], interval: Interval) -> dict[str, Any]:
    """Hold a claim against figures.

    Args:
        claim: the order that should hold.
        auc: AUC on validation by name of the scorer and seed.
        seeds: the bundles.
        interval: of the difference of two scorers, from their names and the seed.

    Returns:
        The claim; ``met``, whether it holds on **every** bundle, ``None`` if a scorer was not tried; ``seeds``, for
        each bundle the ``steps`` from one scorer to the next with their difference in AUC and its interval, the
        smallest of them as ``margin``, and ``met``; and the ``mean`` of the margins.

    Examples:
        >>> auc = {"a": {0: 0.5, 1: 0.75}, "b": {0: 0.75, 1: 0.75}}
        >>> claim = Claim("a < b", ("a", "b"), strict=True)
        >>> found = check(claim, auc, [0, 1], lambda before, after, seed: (0.0, 0.5))
        >>> found["met"], [each["margin"] for each in found["seeds"]], found["mean"]
        (False, [0.25, 0.0], 0.125)
    """
    about = {"claim": claim.text, "order": list(claim.order), "least": claim.least}
    if any(name not in auc for name in claim.order):
        return {**about, "met": None, "seeds": [], "mean": None}
    lines: list[dict[str, Any]] = []
    for seed in seeds:
        steps = [step(before, after, auc, seed, interval) for before, after in pairwise(claim.order)]
        margin = min(each["difference"] for each in steps)
        met = margin > claim.least if claim.strict else margin >= claim.least
        lines.append({"seed": seed, "steps": steps, "margin": margin, "met": met})
    mean = statistics.fmean(line["margin"] for line in lines)
    return {**about, "met": all(line["met"] for line in lines), "seeds": lines, "mean": mean}
