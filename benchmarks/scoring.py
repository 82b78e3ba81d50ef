"""Scoring all candidates, and the ten best live articles of every user, against the network's forward pass alone."""

import time
from collections.abc import Callable

from torch.nn import Module

from benchmarks import inputs
from benchmarks.measure import Row, Run, alternate
from ebnerd_lib.evaluation.diversity import article_space
from ebnerd_lib.recommend import candidate_slates, lists, requests

K, POOL_HOURS, TIMES_SCORED, USERS = 10, 24.0, 2, 400


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
    moment = requests.moment(data, "")
    pool = requests.live_articles(data, moment, POOL_HOURS, exposure=True)
    asked = requests.make_requests(data, requests.choose_users(data, [], USERS, seed=0), moment, pool)
    length = candidate_slates.typical_length(data.parts["train"])
    slates = candidate_slates.sample_slates(asked, length, TIMES_SCORED, True, seed=0)
    space, fields = article_space(data), list(candidate_slates.fields(data, asked, slates))

    def pick() -> None:
        lists.pick(asked, candidate_slates.score_live([model], data, asked, slates)[model.name], space, K)

    def score() -> None:
        for each in fields:
            model.score(data, each.slates, each.matrix, asked.columns)

    took = alternate(ours=pick, bare=lambda: within(model.network, score))
    note = (
        f"size {size}, {len(asked)} users, {len(pool):,} live articles, each scored in {TIMES_SCORED} slates of "
        f"{length}; columns of these slates are computed within our time, those of the requests before it"
    )
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
