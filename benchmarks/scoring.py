"""Scoring all candidates, and the ten best live articles of every user, against the network's forward pass alone."""

import time
from collections.abc import Callable
from dataclasses import replace

from torch.nn import Module

from benchmarks import inputs
from benchmarks.measure import Row, Run, alternate
from ebnerd_lib.evaluation.diversity import article_space
from ebnerd_lib.recommend import lists, requests

K, POOL_HOURS, USERS = 10, 24.0, 400


def measure(run: Run) -> list[Row]:
    """Time scoring at the size of ebnerd_small, and lists at that of ebnerd_demo."""
    return [_candidates(run, run.size("small")), _lists(run, run.size("demo"))]


def _candidates(run: Run, size: str) -> Row:
    data, features = inputs.prepared(size, run.work)
    model = inputs.fitted(size, data, features, "mlp", run.work, epochs=1).model

    def score() -> None:
        for part, slates in data.parts.items():
            model.score(data, slates, features[part].matrix, features[part].columns)

    took = alternate(ours=score, bare=lambda: within(model.network, score))
    note = f"size {size}, {data.log.candidates:,} candidates, mlp, one thread"
    return Row(
        "scoring: all candidates, bare forward pass", took["ours"], "s", "ours / rival ≤ 1.1", took["bare"], note
    )


def _lists(run: Run, size: str) -> Row:
    data, features = inputs.prepared(size, run.work)
    model = inputs.fitted(size, data, features, "mlp", run.work, epochs=1).model
    model = replace(model, trained_on="live")  # as fast, whatever it was trained on
    moment = requests.moment(data, "")
    asked = requests.make_requests(data, requests.choose_users(data, [], USERS, seed=0), moment, POOL_HOURS)
    space = article_space(data)

    def pick() -> None:
        lists.pick(asked.slates, lists.score(model, data, asked), space, K)

    def score() -> None:
        model.score(data, asked.slates, asked.matrix, asked.columns)

    took = alternate(ours=pick, bare=lambda: within(model.network, score))
    note = f"size {size}, {len(asked)} users, {len(asked.pool):,} live articles; their columns are computed before"
    name = "scoring: top-10 of every user, bare forward pass"
    return Row(name, took["ours"], "s", "ours / rival ≤ 1.3", took["bare"], note)


def within(network: Module, work: Callable[[], None]) -> float:
    """Do some work and return the seconds of it that a network's forward pass took."""
    marks: list[float] = []
    before = network.register_forward_pre_hook(lambda *_: marks.append(-time.perf_counter()))
    after = network.register_forward_hook(lambda *_: marks.append(time.perf_counter()))
    work()
    before.remove()
    after.remove()
    return sum(marks)
