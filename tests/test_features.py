"""Causal features against a row-wise oracle, and against the deletion of the future."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracle import ARTICLES, USERS, oracle, random_log

from ebnerd_lib.data.bundle import History
from ebnerd_lib.data.dataset import UNKNOWN_TIME, Metadata
from ebnerd_lib.data.slates import HOUR, Slates, candidate_rows
from ebnerd_lib.errors import ConfigError
from ebnerd_lib.features import build as builds
from ebnerd_lib.features.build import build, compute_features, read_features, write_features
from ebnerd_lib.features.catalogue import STRENGTH_RATES, behind, relative
from ebnerd_lib.features.context import EventCursor, FeatureContext
from ebnerd_lib.features.registry import TIERS, Column, allowed, columns_named, every_column, family

CATEGORIES = 3


def random_world(rng: np.random.Generator, log: Slates) -> FeatureContext:
    sentiment = rng.dirichlet(np.ones(3), ARTICLES).astype(np.float32)
    sentiment[[0, 3]] = np.nan
    published = rng.integers(0, 40 * HOUR, ARTICLES)
    published[[0, 2]] = UNKNOWN_TIME
    counts = rng.integers(0, 4, ARTICLES)
    counts[0] = 0
    vectors = rng.normal(size=(ARTICLES, 3)).astype(np.float32)
    vectors[[0, 5]] = 0
    metadata = Metadata(
        published=published,
        premium=rng.random(ARTICLES) < 0.3,
        category=np.append(0, rng.integers(0, CATEGORIES, ARTICLES - 1)).astype(np.int32),
        sentiment=sentiment,
        topic_starts=np.concatenate(([0], np.cumsum(counts))),
        topics=np.concatenate([rng.choice(4, n, replace=False) for n in counts]).astype(np.int32),
        vectors=vectors,
    )
    return FeatureContext(log, metadata, [random_history(rng, log.time) for _ in range(2)], USERS)


def random_history(rng: np.random.Generator, moments: np.ndarray) -> History:
    """Some clicks, a third of them at the very moments of impressions."""
    counts = rng.integers(0, 8, USERS)
    counts[0] = 0
    times = [np.where(rng.random(n) < 1 / 3, rng.choice(moments, n), rng.integers(0, 60 * HOUR, n)) for n in counts]
    return History(
        np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        rng.integers(0, ARTICLES, counts.sum()).astype(np.int32),
        np.concatenate([np.sort(own) for own in times]).astype(np.int64),
    )


def random_case(seed: int, impressions: int) -> tuple[np.random.Generator, Slates, FeatureContext]:
    rng = np.random.default_rng(seed)
    log = random_log(rng, impressions)
    return rng, log, random_world(rng, log)


def compute(queries: Slates, world: FeatureContext) -> dict[str, np.ndarray]:
    return dict(zip((column.name for column in every_column()), build(queries, world).T, strict=True))


def before(world: FeatureContext, time: int) -> FeatureContext:
    """The world with every event at or after a time deleted."""
    kept = world.log.take(world.log.time < time)
    histories = []
    for history in world.histories:
        keep = history.time < time
        user = np.repeat(np.arange(USERS), history.lengths)[keep]
        offsets = np.concatenate(([0], np.cumsum(np.bincount(user, minlength=USERS)))).astype(np.int64)
        histories.append(History(offsets, history.article[keep], history.time[keep]))
    return FeatureContext(kept, world.metadata, histories, USERS)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
@example(2, 4)  # weeks that overlap in time: the later week's file has a user's earlier impression
def test_deleting_the_future_leaves_every_feature_unchanged_bit_for_bit(seed, impressions):
    rng, log, world = random_case(seed, impressions)
    whole = compute(log, world)
    for row in rng.choice(impressions, min(impressions, 4), replace=False):
        mine = slice(log.offsets[row], log.offsets[row + 1])
        alone = compute(log.take(np.array([row])), before(world, int(log.time[row])))
        for name, values in alone.items():
            np.testing.assert_array_equal(values, whole[name][mine], err_msg=name)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_strength_and_clicks_together_equal_a_walk_along_the_log(seed):
    rng = np.random.default_rng(seed)
    log = random_log(rng, 25)
    log = replace(log, time=10 * HOUR + np.sort(rng.choice(60 * HOUR, 25, replace=False)))
    found = compute(log, random_world(rng, log))
    strength = {name: np.zeros(ARTICLES) for name in STRENGTH_RATES}
    pairs: dict[tuple[int, int], int] = {}
    recent: dict[int, list[int]] = {u: [] for u in range(USERS)}
    for row in range(len(log)):
        mine = slice(log.offsets[row], log.offsets[row + 1])
        slate, clicked, user = log.article[mine], log.clicked[mine], log.user[row]
        for name, rate in STRENGTH_RATES.items():
            np.testing.assert_allclose(found[f"strength_{name}"][mine], strength[name][slate], rtol=1e-5, atol=1e-6)
            if clicked.any():
                odds = np.exp(strength[name][slate])
                moved = rate * (clicked / clicked.sum() - odds / odds.sum())
                strength[name][slate] += np.where(slate > 0, moved, 0)
        for place, a in enumerate(slate):
            together = sum(pairs.get((b, a), 0) for b in recent[user]) if a > 0 else 0
            assert found["together_user"][mine][place] == together
            own = pairs.get((log.page[row], a), 0) if log.page[row] > 0 and a > 0 else 0
            assert found["together_page"][mine][place] == own
        for a in slate[clicked]:
            if user > 0 and a > 0:
                for b in recent[user]:
                    pairs[b, a] = pairs.get((b, a), 0) + 1
                recent[user] = [a, *recent[user]][:5]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_features_equal_an_oracle_that_walks_over_events(seed):
    rng = np.random.default_rng(seed)
    log = replace(random_log(rng, 20), session=np.arange(20) // 7)
    # One impression at a time, so that the last session an article was shown in is never ambiguous.
    log = replace(log, time=10 * HOUR + np.sort(rng.choice(60 * HOUR, 20, replace=False)))
    world = random_world(rng, log)
    found = compute(log, world)
    for row in range(len(log)):
        for place in range(log.offsets[row], log.offsets[row + 1]):
            for name, value in oracle(log, world, row, place).items():
                np.testing.assert_allclose(found[name][place], value, rtol=2e-5, atol=1e-6, err_msg=name)


def test_a_slates_own_clicks_are_hidden_from_its_features():
    _, log, world = random_case(3, 30)
    flipped = replace(log, clicked=~log.clicked)
    whole, other = compute(log, world), compute(flipped, world)
    for name in whole:
        np.testing.assert_array_equal(whole[name], other[name], err_msg=name)


def at_times(*hours: float) -> Slates:
    """Impressions at some hours, each of article 1 alone, which is clicked."""
    size = len(hours)
    log = random_log(np.random.default_rng(0), size)
    ones = np.ones(size, np.int32)
    return replace(
        log, offsets=np.arange(size + 1), article=ones, article_id=ones, clicked=np.ones(size, bool),
        time=np.array(hours) * HOUR,
    )  # fmt: skip


def test_windows_are_closed_below_and_open_above():
    log = at_times(0, 1, 2)
    walk = EventCursor(random_world(np.random.default_rng(0), log))
    np.testing.assert_array_equal(walk.trailing("clicks", log, (1.0, 0.5)), [[0, 0], [1, 0], [1, 0]])
    with pytest.raises(ValueError, match="order of time"):
        walk.trailing("clicks", log, (1.0, 0.5))


def test_decayed_sums_of_a_long_log_are_those_of_its_end():
    """Sums are scaled anew every 512 half-lives; nothing of it shows."""
    log = at_times(0, 513, 514, 5_000, 5_001)
    walk = EventCursor(random_world(np.random.default_rng(0), log))
    np.testing.assert_allclose(walk.decayed("clicks", log, (1.0,)), [[0], [0], [0.5], [0], [0.5]], atol=1e-12)


@pytest.mark.parametrize("half", [False, True])
def test_files_depend_on_neither_threads_nor_chunks(smoke, smoke_features, tmp_path, monkeypatch, half):
    for name, chunk, threads in (("one", 1 << 16, 1), ("small", 700, 2)):
        monkeypatch.setattr(builds, "CHUNK", chunk)
        monkeypatch.setattr(builds, "THREADS", threads)
        (tmp_path / name).mkdir()
        write_features(smoke, tmp_path / name, half=half, leave_out=["page", "clicks_1h"])
    files = sorted(file.name for file in (tmp_path / "one").iterdir())
    assert len(files) == 4
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "small" / file).read_bytes(), file
    full, stored = read_features(smoke_features, "validation"), read_features(tmp_path / "one", "validation")
    left_out = {"clicks_1h"} | {column.name for column in every_column() if column.group == "page"}
    assert stored.columns == [name for name in full.columns if name not in left_out]
    for name in stored.columns:
        expected = full.column(name)
        if half:
            expected = np.clip(expected, -65_504, 65_504).astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(stored.column(name), expected)


def test_leaving_everything_out_and_a_misspelt_group_are_refused(smoke, tmp_path):
    with pytest.raises(ConfigError, match="clicks"):
        columns_named(["clikcs"])
    with pytest.raises(ConfigError, match="leave_out"):
        write_features(smoke, tmp_path, leave_out=[column.name for column in every_column()])


def test_relative_by_hand():
    values = np.array([4.0, 1.0, 1.0, np.nan, 0.0, 0.0, 5.0], dtype=np.float32)
    offsets = np.array([0, 4, 4, 6, 7, 7])
    found = relative(values, offsets)
    np.testing.assert_allclose(found[0], [1, 0.25, 0.25, np.nan, 0.5, 0.5, 0.5])
    np.testing.assert_allclose(found[1], [2, 0.5, 0.5, np.nan, 1, 1, 1])
    np.testing.assert_allclose(behind(values, offsets), [0, -3, -3, np.nan, 0, 0, 0])


def test_tiers_are_nested_and_no_column_on_clicks_is_below_its_own():
    names = [column.name for column in every_column()]
    assert len(set(names)) == len(names) >= 40
    for lower, higher in itertools.pairwise(TIERS):
        assert set(allowed(lower)) < set(allowed(higher))
    assert not {name for name in names if "click" in name or "rate" in name} & set(allowed("exposure"))
    assert not {name for name in names if "inview" in name or "shown" in name} & set(allowed("content"))


@pytest.mark.parametrize(
    ("name", "tier", "formula", "reads", "message"),
    [
        ("slate_length", "content", "", (), "slate_length is registered twice"),
        ("sly", "future", "", (), "tier 'future' is unknown"),
        ("sly", "clicks", "", ("nothing_such",), "reads nothing_such"),
        ("sly", "content", "clicks in disguise", ("clicks_1h",), "may not know clicks_1h"),
        ("sly", "content", "log(total_pageviews of a)", (), "total_pageviews may not be used"),
        ("sly", "content", "next_read_time", (), "next_read_time may not be used"),
    ],
)
def test_a_feature_that_knows_what_it_may_not_is_refused(name, tier, formula, reads, message):
    before = every_column()
    with pytest.raises(ConfigError, match=message):
        family(Column(name, tier, "g", "", formula), reads=reads)(lambda chunk: None)
    assert every_column() == before


def test_below_the_tier_of_clicks_nothing_depends_on_what_the_hidden_test_lacks():
    _, log, world = random_case(11, 40)
    bare = replace(log, page=np.zeros_like(log.page), front_page=np.zeros_like(log.front_page)).without_clicks()
    whole, lacking = compute(log, world), compute(bare, FeatureContext(bare, world.metadata, world.histories, USERS))
    for name in allowed("exposure"):
        np.testing.assert_array_equal(whole[name], lacking[name], err_msg=name)
    assert any(not np.array_equal(whole[name], lacking[name], equal_nan=True) for name in allowed("clicks"))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 60))
def test_chunks_yield_what_build_fills_in_on_any_number_of_threads(seed, impressions, chunk):
    rng, log, world = random_case(seed, impressions)
    whole = compute(log, world)
    names = list(rng.permutation(sorted(whole))[: rng.integers(0, 30)])
    seen = np.zeros(impressions, bool)
    late = rng.permutation(np.flatnonzero(log.time >= np.quantile(log.time, rng.random() / 2)))
    queries = log.take(late)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builds, "CHUNK", chunk)
        patch.setattr(builds, "THREADS", int(rng.integers(1, 4)))
        parts = compute_features(queries, world, names)
        found = [(rows, slates, features.select(names)) for rows, slates, features in parts]
    for rows, slates, matrix in found:
        rows = late[rows]
        assert not seen[rows].any() and not slates.clicked.any()
        seen[rows] = True
        where = candidate_rows(log.offsets, rows)
        for place, name in enumerate(names):
            np.testing.assert_array_equal(matrix[:, place], whole[name][where], err_msg=name)
    assert seen.sum() == len(late)
