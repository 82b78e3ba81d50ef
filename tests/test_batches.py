"""Batches: what they hold of slates and of features on disk."""

import numpy as np
import pytest

from ebnerd_lib.training.batches import Lookup, SlateBatches
from ebnerd_lib.training.gather import gather


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("columns", [None, [0, 1, 2, 3, 4], [3, 0], [2], []])
def test_gathered_values_are_those_of_the_matrix(tmp_path, dtype, columns):
    values = np.random.default_rng(0).normal(size=(50, 5)).astype(dtype)
    values[::7, 3] = np.nan
    values[1, :3] = [np.inf, 0.0, 6e-8]  # the last one is denormal as half
    np.save(tmp_path / "features.npy", values)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    where = np.random.default_rng(1).integers(0, 50, 80)
    taken = gather(mapped, where, None if columns is None else np.array(columns, np.int64))
    assert taken.dtype == np.float32 and taken.flags.writeable
    picked = values if columns is None else values[:, columns]
    np.testing.assert_array_equal(taken, picked[where].astype(np.float32))


def test_a_batch_holds_the_slates_asked_for(smoke):
    slates = smoke.parts["train"]
    lookup = Lookup(np.arange(len(smoke.users)) * 2, np.arange(len(smoke.articles)) * 3)
    matrix = np.random.default_rng(0).random((slates.candidates, 4), dtype=np.float32)
    rows = np.random.default_rng(1).permutation(len(slates))[:30]
    batches = list(SlateBatches(slates, matrix, [1, 3], lookup, rows, 16))
    assert [len(batch.user) for batch in batches] == [16, 14]
    for batch, own in zip(batches, (rows[:16], rows[16:]), strict=True):
        part = slates.take(own)
        where = np.concatenate([np.arange(slates.offsets[row], slates.offsets[row + 1]) for row in own])
        np.testing.assert_array_equal(batch.features, matrix[where][:, [1, 3]])
        np.testing.assert_array_equal(batch.user, part.user.astype(np.int64) * 2)
        np.testing.assert_array_equal(batch.article, part.article.astype(np.int64) * 3)
        np.testing.assert_array_equal(batch.clicked, part.clicked)
        np.testing.assert_array_equal(batch.slate, part.per_candidate(np.arange(len(own))))
        np.testing.assert_array_equal(batch.place, np.concatenate([np.arange(size) for size in part.lengths]))
