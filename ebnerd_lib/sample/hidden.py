"""The hidden test week: the readers' third week without its clicks, and rows for beyond-accuracy measures."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ebnerd_lib.data.layout import TEST
from ebnerd_lib.data.schema import BEHAVIORS, HISTORY, TEST_BEHAVIORS, arrow_schema
from ebnerd_lib.sample.articles import END, WEEK, Articles, list_column, table_of
from ebnerd_lib.sample.audience import Audience
from ebnerd_lib.sample.random import scramble, stream_key
from ebnerd_lib.sample.simulate import Pools
from ebnerd_lib.sample.weeks import ROW_GROUP, RowGroups, Site, nullable

TRUTH = {name: BEHAVIORS[name] for name in ("impression_id", "article_ids_clicked")}
BEYOND_ACCURACY_SLATE = 250
BEYOND_ACCURACY_ROWS = 1 << 14  # rows held at once


def write_test(
    bundle: Path, seed: int, catalogue: Articles, audience: Audience, latest: NDArray[np.int64], pools: Pools,
    beyond_accuracy: int, chunk_users: int,
) -> None:  # fmt: skip
    """Write behaviours and histories of the test week, and beside them what was clicked, which no scorer may read.

    Args:
        bundle: Folder of the bundle.
        seed: Seed of the sample.
        catalogue: The articles, those of the test week included.
        audience: The readers, with the counts of three weeks.
        latest: By reader, the clicks in the validation week other than those of its impressions.
        pools: What may be shown and read, the test week included.
        beyond_accuracy: Rows that stand at the end and share one slate.
        chunk_users: How many readers to simulate at once; bounds memory and changes nothing else.
    """
    folder = bundle / TEST
    folder.mkdir()
    site = Site(seed, catalogue, audience, pools)
    with (
        RowGroups(folder / "behaviors.parquet", arrow_schema(TEST_BEHAVIORS), ROW_GROUP["behaviors"]) as behaviors,
        RowGroups(folder / "history.parquet", arrow_schema(HISTORY), ROW_GROUP["history"]) as history,
        RowGroups(folder / "truth.parquet", arrow_schema(TRUTH), ROW_GROUP["behaviors"]) as truth,
    ):
        for begin in range(0, len(audience), chunk_users):
            chunk = np.arange(begin, min(begin + chunk_users, len(audience)))
            train, validation, week = (site.week(split, chunk) for split in (0, 1, 2))
            table = _told(site, site.behaviors(2, chunk, week))
            truth.put(table.select(list(TRUTH)))
            behaviors.put(table.select(list(TEST_BEHAVIORS)))
            history.put(site.test_history(chunk, latest[chunk], train, validation))
        behaviors.flush()
        for table in _beyond_accuracy(seed, catalogue, audience, beyond_accuracy):
            behaviors.put(table)
            behaviors.flush()


def _told(site: Site, table: pa.Table) -> pa.Table:
    """Return the rows of readers under ids other than 0, which beyond-accuracy rows have, and say that they are not."""
    ids = table["impression_id"].to_numpy()
    spare = scramble(np.array([site.rows]), stream_key(site.seed, 16), 32)  # of no row
    table = table.set_column(0, "impression_id", pa.array(np.where(ids == 0, spare, ids)))
    return table.append_column("is_beyond_accuracy", pa.array(np.zeros(ids.size, bool)))


def _beyond_accuracy(seed: int, catalogue: Articles, audience: Audience, number: int) -> Iterator[pa.Table]:
    """Yield rows of distinct readers of the test week, in no order, all with one slate of what was out by then."""
    rng = np.random.default_rng([seed, 33])
    first, past = np.searchsorted(catalogue.published, [END - 3 * WEEK, END])
    slate = catalogue.article_id[first + rng.choice(past - first, BEYOND_ACCURACY_SLATE, replace=False)]
    readers = rng.permutation(np.flatnonzero(audience.counts[2]))[:number]
    times = END + rng.integers(0, WEEK, number)
    for begin in range(0, number, BEYOND_ACCURACY_ROWS):
        user, time = readers[begin : begin + BEYOND_ACCURACY_ROWS], times[begin : begin + BEYOND_ACCURACY_ROWS]
        zeros = np.zeros(user.size, np.uint32)
        columns = {
            "impression_id": zeros,
            "impression_time": (time * 1_000_000).astype("datetime64[us]"),
            "read_time": zeros.astype(np.float32),
            "scroll_percentage": pa.nulls(user.size, pa.float32()),
            "device_type": audience.device[user],
            "article_ids_inview": list_column(np.full(user.size, slate.size), np.tile(slate, user.size)),
            "user_id": audience.user_id[user],
            "is_sso_user": audience.sso[user],
            "gender": nullable(audience.gender[user]),
            "postcode": nullable(audience.postcode[user]),
            "age": nullable(audience.age[user]),
            "is_subscriber": audience.subscriber[user],
            "session_id": zeros,
            "is_beyond_accuracy": np.ones(user.size, bool),
        }
        yield table_of(columns, TEST_BEHAVIORS)
