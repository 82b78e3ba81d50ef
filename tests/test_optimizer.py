"""The optimizer, and the dropout: what they share with torch's own and where they differ."""

import pytest
import torch
from torch import nn

from ebnerd_lib.models.base import RowwiseAdamW
from ebnerd_lib.models.layers import Dropout

GROUP = {"weight_decay": 0.1}


def train(table, optimizer, batches, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for rows in batches:
        target = torch.randn(len(rows), table.embedding_dim, generator=generator)

        def closure(rows=rows, target=target):
            optimizer.zero_grad()
            loss = (table(rows) - target).square().sum()
            loss.backward()
            return loss

        assert optimizer.step(closure) > 0
    return table.weight.detach().clone()


def tables(size=20, width=3):
    own, other = nn.Embedding(size, width, sparse=True), nn.Embedding(size, width)
    other.load_state_dict(own.state_dict())
    return own, other


def test_steps_are_those_of_adamw_where_a_batch_has_every_row():
    own, other = tables()
    batches = [torch.cat([torch.arange(20), torch.randint(0, 20, (9,))]) for _ in range(15)]
    mine = train(own, RowwiseAdamW([{"params": [own.weight], **GROUP}], 0.01), batches)
    theirs = train(other, torch.optim.AdamW([{"params": [other.weight], **GROUP}], lr=0.01), batches)
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_rows_that_no_batch_has_stay_as_they_are():
    own, _ = tables()
    before = own.weight.detach().clone()
    optimizer = RowwiseAdamW([{"params": [own.weight], **GROUP}], 0.01)
    after = train(own, optimizer, [torch.tensor([3, 7, 3])] * 4)
    moved = (after != before).any(dim=1)
    assert moved.nonzero().ravel().tolist() == [3, 7]
    assert not optimizer.state[own.weight]["exp_avg"][~moved].any()


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(share):
    torch.manual_seed(0)
    units, dropout = torch.ones(300, 1001), Dropout(share)
    dropped = dropout(units)
    assert (dropped == 0).float().mean() == pytest.approx(share, abs=0.003)
    assert dropped.mean() == pytest.approx(1, abs=0.003)
    assert len(dropped.unique()) == 2
    torch.manual_seed(0)
    assert torch.equal(dropout(units), dropped)
    assert not torch.equal(dropout(units), dropped)
    assert dropout.eval()(units) is units and Dropout(0.0)(units) is units


def test_units_drop_independently_of_their_neighbours():
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(200_000)) > 0).float() - 0.5
    for lag in range(1, 9):
        assert (kept[lag:] * kept[:-lag]).mean().abs() < 0.25 * 0.02
