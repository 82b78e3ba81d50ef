"""The examples in the README run as they stand."""

import re

import numpy as np
import torch
from torch import nn

from ebnerd_lib.data.slates import HOUR
from ebnerd_lib.features import store
from ebnerd_lib.features.build import build
from ebnerd_lib.features.registry import Column, every_column, family, unregister
from ebnerd_lib.models.base import SlateModel
from ebnerd_lib.models.batch import Batch
from ebnerd_lib.pipeline.layout import ROOT

EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def example(word: str) -> str:
    (found,) = [text for text in EXAMPLES if word in text]
    return re.sub(r"(?m)^  ", "", found)


def test_the_feature_example(smoke):
    exec(example("@family"), {"family": family, "Column": Column, "HOUR": HOUR, "np": np})
    try:
        slates = smoke.parts["tuning"]
        out = np.empty((slates.candidates, len(every_column())), np.float32)
        names = build(slates, store.world_of(smoke), out)
        days = slates.time.astype("datetime64[us]").astype("datetime64[D]")
        weekend = ~np.is_busday(days)
        np.testing.assert_array_equal(out[:, names.index("is_weekend")], slates.per_candidate(weekend))
    finally:
        unregister("weekend")


def test_the_model_example():
    space = {"SlateModel": SlateModel, "nn": nn}
    exec(example("class Linear"), space)
    model = space["Linear"](columns=3, users=2, articles=2)
    one = torch.zeros(4, dtype=torch.int64)
    batch = Batch(torch.zeros(4, 3), one[:1], one, one, torch.arange(4), torch.zeros(4))
    assert model(batch).shape == model.score(batch).shape == (4,)


def test_the_results_name_a_tier_in_every_row():
    rows = re.findall(r"^\| .* \| (\w+) \| \.\d{4} \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) >= 5 and set(rows) <= {"ids", "content", "exposure", "clicks"}
