"""The floor of scoring: a network's forward pass over batches that are there already, and nothing around it."""

import time
from collections.abc import Iterable

import torch

from ebnerd_lib.models.base import SlateModel
from ebnerd_lib.models.batch import Batch


def forward(network: SlateModel, batches: Iterable[Batch]) -> tuple[float, list[torch.Tensor]]:
    """Score batches; return the seconds that the network took, those for making a batch left out, and the scores."""
    seconds, scores = 0.0, []
    network.eval()
    with torch.inference_mode():
        for batch in batches:
            start = time.perf_counter()
            scores.append(network(batch))
            seconds += time.perf_counter() - start
    return seconds, scores
