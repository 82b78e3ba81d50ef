"""Batches: what they hold of slates and of features on disk."""

import numpy as np
import pytest
import torch

from ebnerd_lib.training.batches import SlateBatches, gather, keep_some
from ebnerd_lib.training.inputs import IdEncoder


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("columns", [[0, 1, 2, 3, 4], [3, 0], [2], []])
def test_gathered_values_are_those_of_the_matrix(tmp_path, dtype, columns):
    values = np.random.default_rng(0).normal(size=(50, 5)).astype(dtype)
    values[::7, 3] = np.nan
    values[1, :3] = [np.inf, 0.0, 6e-8]  # the last one is denormal as half
    np.save(tmp_path / "features.npy", values)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    where = np.random.default_rng(1).integers(0, 50, 80)
    for matrices in ([mapped], [mapped[:11], mapped[11:12], mapped[12:]]):
        taken = gather(matrices, where, np.array(columns, np.int64))
        assert taken.dtype == torch.float32
        np.testing.assert_array_equal(taken, values[:, columns][where].astype(np.float32))
        taken += 1  # what comes after it may write into it


def test_a_batch_holds_the_slates_asked_for(smoke):
    slates = smoke.parts["train"]
    encoder = IdEncoder(np.arange(len(smoke.users)) * 2, np.arange(len(smoke.articles)) * 3)
    matrix = np.random.default_rng(0).random((slates.candidates, 4), dtype=np.float32)
    rows = np.random.default_rng(1).permutation(len(slates))[:30]
    batches = list(SlateBatches(slates, [matrix], [1, 3], encoder, rows, 16))
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


def sampled(smoke, negatives, seed, epoch):
    slates = smoke.parts["train"]
    encoder = IdEncoder(np.arange(len(smoke.users)), np.arange(len(smoke.articles)))
    matrix = np.arange(slates.candidates, dtype=np.float32)[:, None]
    rows = np.random.default_rng(5).permutation(np.flatnonzero(slates.has_choice))
    return rows, list(
        SlateBatches(slates, [matrix], [0], encoder, rows, 64, negatives=negatives, sample_seed=(seed, epoch))
    )  # fmt: skip


def test_sampled_slates_keep_all_clicks_and_no_more_others_than_asked_for(smoke):
    slates = smoke.parts["train"]
    rows, batches = sampled(smoke, 3, 0, 0)
    kept = np.concatenate([batch.features[:, 0].numpy().astype(int) for batch in batches])
    slate_of = slates.per_candidate(np.arange(len(slates)))[kept]
    assert len(np.unique(kept)) == len(kept)
    np.testing.assert_array_equal(slate_of[np.sort(np.unique(slate_of, return_index=True)[1])], rows)
    clicks = np.bincount(slate_of, slates.clicked[kept], minlength=len(slates))[rows]
    others = np.bincount(slate_of, ~slates.clicked[kept], minlength=len(slates))[rows]
    in_view = np.add.reduceat(slates.clicked.astype(int), slates.offsets[:-1])[rows]
    np.testing.assert_array_equal(clicks, in_view)
    np.testing.assert_array_equal(others, np.minimum(3, slates.lengths[rows] - in_view))
    assert len(kept) < slates.lengths[rows].sum() / 1.5
    for batch in batches:
        lengths = np.bincount(batch.slate, minlength=len(batch.user))
        np.testing.assert_array_equal(batch.place, np.concatenate([np.arange(size) for size in lengths]))
        where = batch.features[:, 0].numpy().astype(int)
        np.testing.assert_array_equal(batch.article, slates.article[where])
        np.testing.assert_array_equal(batch.clicked, slates.clicked[where])


def test_samples_differ_between_epochs_and_seeds_and_repeat_for_the_same(smoke):
    def kept(seed, epoch):
        return np.concatenate([batch.features[:, 0] for batch in sampled(smoke, 2, seed, epoch)[1]])

    np.testing.assert_array_equal(kept(0, 1), kept(0, 1))
    assert not np.array_equal(np.sort(kept(0, 1)), np.sort(kept(0, 2)))
    assert not np.array_equal(np.sort(kept(0, 1)), np.sort(kept(1, 1)))


def test_every_negative_is_as_likely_to_be_kept():
    size, draws = 8, 4000
    clicked = np.zeros(size * draws, np.float32)
    clicked[2::size] = 1
    slate, place = np.repeat(np.arange(draws), size), np.tile(np.arange(size), draws)
    kept, _ = keep_some(slate, place, clicked, draws, 2, np.random.default_rng(0))
    share = np.bincount(kept % size) / draws
    assert share[2] == 1
    np.testing.assert_allclose(np.delete(share, 2), 2 / 7, atol=0.03)
