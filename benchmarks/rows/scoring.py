"""Scoring all candidates, and the ten best live articles for every user, against the forward pass alone."""

import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks import bundles, preprocessing, training
from benchmarks.context import Context, Measured
from benchmarks.rivals.forward import forward
from benchmarks.row import Row, at_most
from benchmarks.timing import RUNS, Times, seconds
from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import Slates
from ebnerd_lib.evaluation.space import article_space
from ebnerd_lib.models.threads import one_thread
from ebnerd_lib.recommend import competition, lists, requests
from ebnerd_lib.training.batches import Lookup, Reading, SlateBatches
from ebnerd_lib.training.model_file import SCORE_BATCH, TrainedModel

K, POOL_HOURS, DRAWS = 10, 24.0, 2
USERS = {True: 50, False: 400}
"""Of validation, drawn by seed; each is served apart, so the ratio does not depend on how many they are."""


def measure(context: Context) -> Measured:
    """Time scoring and recommending against the model's own forward pass over batches that are there already."""
    return Measured([_candidates(context.size), _lists("demo", USERS[context.quick])])


def _candidates(size: str) -> Row:
    data, features = preprocessing.read(bundles.features(size))
    model = training.untrained(data, features, "mlp", "mlp")
    parts = [(data.parts[part], features[part].matrix) for part in data.parts]

    def score() -> None:
        for slates, matrix in parts:
            model.score(data, slates, matrix, features["train"].columns)

    def bare() -> float:
        return sum(bare_forward(model, data, slates, matrix, features["train"].columns)[0] for slates, matrix in parts)

    times = _turns(score, bare)
    note = f"Size {size}, {data.log.candidates:,} candidates, mlp, one thread; the floor has its batches in memory."
    return at_most("scoring all candidates: bare forward pass", times["ours"], times["rival"], 1.3, note)


def _lists(size: str, users: int) -> Row:
    data, features = preprocessing.read(bundles.features(size))
    model = training.untrained(data, features, "mlp", "mlp")
    moment = requests.moment(data, "")
    pool = requests.live_articles(data, moment, POOL_HOURS, exposure=True)
    asking = requests.choose_users(data, [], users, seed=0)
    asked: list[requests.Requests] = []
    made = seconds(lambda: asked.append(requests.make_requests(data, asking, moment, pool)))
    length = competition.typical_length(data.parts["train"])
    slates = competition.draw_slates(asked[0], length, DRAWS, True, seed=0)
    space = article_space(data)
    fields = list(competition.fields(data, asked[0], slates))

    def recommend() -> None:
        scores = competition.score_live([model], data, asked[0], slates)
        lists.pick(asked[0], scores[model.name], space, K)

    def bare() -> float:
        return sum(bare_forward(model, data, each.slates, each.matrix, asked[0].columns)[0] for each in fields)

    times = _turns(recommend, bare)
    note = (
        f"Size {size}, {len(asking):,} users of validation, {len(pool):,} live articles, each scored in {DRAWS} slates "
        f"of {length} against others: {sum(len(each.matrix) for each in fields):,} candidates. Features of the "
        f"slate are computed within our time; those of the requests before it take {made:.1f} s."
    )
    return at_most("top-10 for every user: bare forward pass", times["ours"], times["rival"], 1.3, note)


@one_thread()
def bare_forward(
    model: TrainedModel, data: Dataset, slates: Slates, matrix: np.ndarray, names: list[str]
) -> tuple[float, list[torch.Tensor]]:
    """Return the seconds that the network takes for slates on one thread, and their scores."""
    columns = [names.index(name) for name in model.columns]
    lookup = Lookup.between(data, model.users, model.articles)
    reading = Reading.of(data, model.network)
    batches = SlateBatches(slates, matrix, columns, lookup, np.arange(len(slates)), SCORE_BATCH, reading)
    return forward(model.network, batches)


def _turns(ours: Callable[[], object], rival: Callable[[], float]) -> dict[str, Times]:
    """Time ours and, in turns with it, ask the rival for its own seconds; the first of each warms up."""
    found: dict[str, list[float]] = {"ours": [], "rival": []}
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        ours()
        found["ours"].append(time.perf_counter() - start)
        found["rival"].append(rival())
    return {name: Times(each[1:]) for name, each in found.items()}
