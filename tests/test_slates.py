"""Slates as flat arrays: taking, joining, cutting into chunks, keeping on disk."""

import itertools
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import assert_same, random_log

from ebnerd_lib.data import slates as slates_io
from ebnerd_lib.data.slates import Slates, concatenate


def rows_of(slates: Slates) -> list[dict[str, list]]:
    """Slates row by row: the oracle of what is taken."""
    rows = [slates.between(row, row + 1) for row in range(len(slates))]
    return [{field.name: getattr(row, field.name).tolist() for field in fields(row)} for row in rows]


random_slates = st.builds(
    lambda seed, number: random_log(np.random.default_rng(seed), number), st.integers(0, 99), st.integers(0, 12)
)


@st.composite
def slates_and_rows(draw):
    slates = draw(random_slates)
    rows = draw(st.lists(st.integers(0, len(slates) - 1), max_size=20)) if len(slates) else []
    return slates, np.array(rows, dtype=np.int64)


@settings(deadline=None)
@given(slates_and_rows())
def test_take_is_what_a_loop_over_rows_takes(case):
    slates, rows = case
    taken = slates.take(rows)
    every = rows_of(slates)
    assert rows_of(taken) == [every[row] for row in rows]
    mask = np.isin(np.arange(len(slates)), rows)
    assert rows_of(slates.take(mask)) == [every[row] for row in np.unique(rows)]


@given(random_slates, st.lists(st.integers(0, 12), max_size=3))
def test_views_that_are_neighbours_are_joined_without_copies(slates, cuts):
    ends = [0, *sorted(min(cut, len(slates)) for cut in cuts), len(slates)]
    joined = concatenate([slates.between(start, stop) for start, stop in itertools.pairwise(ends)])
    assert_same(joined, slates)
    swapped = concatenate([slates.between(len(slates) // 2, len(slates)), slates.between(0, len(slates) // 2)])
    assert_same(swapped, slates.take(np.roll(np.arange(len(slates)), -(len(slates) // 2))))
    if len(slates):
        assert np.shares_memory(joined.article, slates.article)


@settings(deadline=None)
@given(slates_and_rows(), st.integers(1, 12))
def test_chunks_cover_everything_once_and_are_as_full_as_they_may_be(case, limit):
    slates, order = case
    pieces = list(slates.chunks(order, limit))
    assert [row for piece in pieces for row in piece.tolist()] == order.tolist()
    sizes = [int(slates.lengths[piece].sum()) for piece in pieces]
    for place, (piece, size) in enumerate(zip(pieces, sizes, strict=True)):
        assert len(piece) == 1 or size <= limit
        if place + 1 < len(pieces):
            assert size + slates.lengths[pieces[place + 1][0]] > limit, "the next slate would have fitted"


@settings(deadline=None, max_examples=30)
@given(random_slates, st.integers(1, 4))
def test_saved_slates_come_back_the_same(tmp_path_factory, slates, group):
    file = tmp_path_factory.mktemp("slates") / "slates.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slates_io, "_GROUP", group)  # impressions of a row group
        slates_io.save(slates, file)
    (loaded,) = slates_io.load([file])
    assert_same(loaded, slates)
    assert loaded.article.flags.writeable, "kernels compile anew for arrays that may not be written"
