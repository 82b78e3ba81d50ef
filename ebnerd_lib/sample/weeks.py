"""Behaviours and histories of all weeks, the hidden test week included, written a chunk of readers at a time."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ebnerd_lib.data.layout import SPLITS, TEST
from ebnerd_lib.data.schema import BEHAVIORS, HISTORY, TEST_BEHAVIORS, arrow_schema, table_of
from ebnerd_lib.sample import simulate
from ebnerd_lib.sample.articles import TRAIN_BEGIN, WEEK, Articles, Floats, Places, list_column, starts_of
from ebnerd_lib.sample.pools import TRAFFIC, Pools
from ebnerd_lib.sample.readers import Readers, evenly

MICRO = 1_000_000  # microseconds in a second
SECONDS = (1 << 32) - 1  # the part of an event that is its time
CHUNK_USERS = 1 << 14  # readers simulated at once: bounds memory and changes nothing else
ROW_GROUP = {"behaviors": 1 << 18, "history": 1 << 14}
TRUTH = {name: BEHAVIORS[name] for name in ("impression_id", "article_ids_clicked")}
BEYOND_ACCURACY_SLATE = 250
BEYOND_ACCURACY_ROWS = 1 << 14  # rows held at once
WEEK_STREAMS = (20, 21, 26)  # purposes of random numbers: train, validation, test

# Inverse distribution functions: probability, then value.
SLATE_SIZES = (
    ((0, .176, .314, .417, .503, .577, .75, .90, .95, .99, 1), (4, 5, 6, 7, 8, 9, 13, 21, 28, 42, 100)),
    ((0, .168, .300, .400, .484, .556, .75, .90, .95, .99, 1), (4, 5, 6, 7, 8, 9, 14, 23, 30, 51, 93)),
)  # fmt: skip
TWO_CLICKS, THREE_CLICKS = 0.0053, 0.0007  # share of impressions with so many or more
OLD_SHARE_ALPHA, OLD_SHARE_BETA = 0.8, 3.2
OTHER_DEVICE = 0.35  # share of visits from the second device, where there is one
READ_PROBABILITIES = (0, 0.05, 0.25, 0.5, 0.75, 0.9, 0.96, 0.99, 1)
READ_FRONT = (0, 2, 7, 17, 32, 55, 90, 220, 1200)
READ_ARTICLE = (0, 4, 22, 50, 82, 122, 210, 470, 1800)
READ_NEXT = (0, 0, 5, 21, 60, 130, 260, 1010, 1800)
NULL_SCROLL_ON_ARTICLE, NULL_NEXT_READ, NULL_NEXT_SCROLL = 0.012, 0.027, 0.112


def write_weeks(bundle: Path, simulation: "Simulation", splits: Sequence[int], beyond_accuracy: int) -> None:
    """Write behaviours and histories of splits, and what was clicked in the test week, which no scorer may read.

    As many rows for beyond-accuracy measures as given stand behind all others of the last split.
    """
    with ExitStack() as stack:
        files: dict[int, list[RowGroups]] = {split: [] for split in splits}
        for split in splits:
            folder = bundle / (*SPLITS, TEST)[split]
            folder.mkdir()
            test = {"behaviors": TEST_BEHAVIORS, "truth": TRUTH} if split == 2 else {}
            for name, schema in ({"history": HISTORY, "behaviors": BEHAVIORS} | test).items():
                writer = stack.enter_context(pq.ParquetWriter(folder / f"{name}.parquet", arrow_schema(schema)))
                files[split].append(RowGroups(writer, schema, ROW_GROUP.get(name, ROW_GROUP["behaviors"])))
        readers = simulation.readers.device.size
        for begin in range(0, readers, CHUNK_USERS):
            chunk = np.arange(begin, min(begin + CHUNK_USERS, readers))
            weeks = [simulation.week(split, chunk) for split in range(max(splits) + 1)]
            clicks = simulation.clicks(chunk, weeks)
            for split, (history, *others) in files.items():
                history.put(simulation.history(split, chunk, clicks))
                columns = simulation.behaviors(split, chunk, weeks[split])
                for file in others:
                    file.put(columns)
        for file in (file for split in splits for file in files[split]):
            file.write(least=1)
        for columns in simulation.beyond_accuracy(beyond_accuracy):
            files[splits[-1]][1].put(columns)
            files[splits[-1]][1].write(least=1)


class RowGroups:
    """A parquet file written in row groups of a fixed size, whatever the size of what is put in.

    Each row group is sorted by its first column, an id without order, so that rows of a reader lie apart.
    """

    def __init__(self, writer: pq.ParquetWriter, schema: dict[str, pa.DataType], rows: int):
        self._writer, self._schema, self._rows = writer, schema, rows
        self._held = arrow_schema(schema).empty_table()

    def put(self, columns: dict[str, Any]) -> None:
        """Add rows, and write all row groups that are full; columns that the file has not are left out."""
        self._held = pa.concat_tables([self._held, table_of(columns, self._schema)])
        self.write(least=self._rows)

    def write(self, least: int) -> None:
        """Write row groups while so many rows are held; what is put in afterwards starts one of its own."""
        while self._held.num_rows >= least:
            group, self._held = self._held.slice(0, self._rows), self._held.slice(self._rows)
            order = np.argsort(group.column(0).to_numpy(), kind="stable")
            self._writer.write_table(group.take(pa.array(order)).combine_chunks(), row_group_size=self._rows)


class Simulation:
    """The site and its readers: makes the rows of any chunk of readers, which are given as ordinals in a row.

    Splits are numbered: 0 train, 1 validation, 2 the hidden test week.
    """

    def __init__(self, seed: int, articles: Articles, readers: Readers, pools: Pools):
        self.seed, self.articles, self.readers = seed, articles, readers
        # As many categories and topics as occur: one more would shift the random numbers of a reader's profile.
        categories, topics = int(articles.category.max()) + 1, int(articles.topic.max()) + 1
        shared = evenly(np.arange(categories + topics), np.random.default_rng([seed, 35]).random())
        self.site = simulate.Site(
            profile_key=self._key(22),
            profile_mean=simulate.SHARED_PROFILE * np.sqrt(3.0) * (2.0 * shared - 1.0),
            subjects=np.stack([articles.category, categories + articles.topic], axis=1),
            premium=articles.premium,
            pools=pools,
            start=starts_of(pools.size),
            old_start=starts_of(pools.old_size),
            traffic=np.cumsum(TRAFFIC),
            old_shares=_inverse_beta(),
        )
        self.user_id = simulate.scramble(np.arange(readers.device.size), self._key(2), 22) + np.uint32(10_000)
        # Rows are numbered through the weeks, so that ids made of the numbers are unique over all of them.
        totals = readers.counts.sum(axis=1)
        before = np.cumsum(totals) - totals
        self.first_row = np.pad(np.cumsum(readers.counts, axis=1), ((0, 0), (1, 0))) + before[:, None]

    def _key(self, purpose: int) -> np.uint64:
        return simulate.stream_key(self.seed, purpose)

    def _uniforms(self, purpose: int, counters: NDArray[np.integer]) -> Floats:
        return simulate.hashed_uniforms(self._key(purpose), counters)

    def week(self, split: int, chunk: Places) -> simulate.Week:
        """Simulate a week of the readers of a chunk; those absent have no rows."""
        rows = starts_of(self.readers.counts[split, chunk])
        ordinal = self.first_row[split, chunk[0]] + np.arange(rows[-1])
        sizes = np.ceil(np.interp(self._uniforms(10, ordinal), *SLATE_SIZES[min(split, 1)])).astype(np.int64).clip(5)
        luck = self._uniforms(11, ordinal)
        slate_start = starts_of(sizes)
        click_start = starts_of(1 + (luck < TWO_CLICKS).astype(np.int64) + (luck < THREE_CLICKS))
        week = simulate.Week(
            begin=TRAIN_BEGIN + split * WEEK,
            rows=rows,
            times=np.empty(rows[-1], np.int64),
            opens=np.empty(rows[-1], np.bool_),
            pages=np.empty(rows[-1], np.int32),
            slate_start=slate_start,
            slates=np.empty(slate_start[-1], np.int32),
            click_start=click_start,
            clicks=np.empty(click_start[-1], np.int32),
        )
        simulate.simulate_week(self._key(WEEK_STREAMS[split]), self.site, chunk, self.readers.subscriber[chunk], week)
        return week

    def behaviors(self, split: int, chunk: Places, week: simulate.Week) -> dict[str, Any]:
        """Return the columns of the behaviours of a chunk, for any schema of them."""
        ids, second = self.articles.article_id, self.readers.second_device
        user = np.repeat(chunk, np.diff(week.rows))
        first = self.first_row[split, chunk[0]]
        ordinal = first + np.arange(user.size)
        visit = first + np.maximum.accumulate(np.where(week.opens, np.arange(user.size), 0))
        front = week.pages < 0
        luck = self._uniforms(14, ordinal)
        on_front, on_article = (np.interp(luck, READ_PROBABILITIES, read) for read in (READ_FRONT, READ_ARTICLE))
        other = (self._uniforms(15, visit) < OTHER_DEVICE) & (second[user] > 0)
        next_read, next_scroll = self._outcome((user << 32) + week.times)
        return self._people(user) | {
            "impression_id": simulate.scramble(ordinal, self._key(16), 32),
            "article_id": pa.array(ids[week.pages], mask=front),
            "impression_time": week.times * MICRO,
            "read_time": np.rint(np.where(front, on_front, on_article)).astype(np.float32),
            "scroll_percentage": self._scrolled(17, ordinal, np.where(front, 1.0, NULL_SCROLL_ON_ARTICLE)),
            "device_type": np.where(other, second[user], self.readers.device[user]),
            "article_ids_inview": list_column(np.diff(week.slate_start), ids[week.slates]),
            "article_ids_clicked": list_column(np.diff(week.click_start), ids[week.clicks]),
            "session_id": simulate.scramble(visit, self._key(18), 32),
            "next_read_time": pa.array(next_read, mask=self._uniforms(19, ordinal) < NULL_NEXT_READ),
            "next_scroll_percentage": next_scroll,
            "is_beyond_accuracy": np.zeros(user.size, bool),
        }

    def beyond_accuracy(self, number: int) -> Iterator[dict[str, Any]]:
        """Yield rows of distinct readers of the test week, in no order, all with one slate of what was out by then."""
        rng = np.random.default_rng([self.seed, 33])
        week = TRAIN_BEGIN + 2 * WEEK
        first, past = np.searchsorted(self.articles.published, [week - 3 * WEEK, week])
        slate = self.articles.article_id[first + rng.choice(past - first, BEYOND_ACCURACY_SLATE, replace=False)]
        readers = rng.permutation(np.flatnonzero(self.readers.counts[2]))[:number]
        times = week + rng.integers(0, WEEK, number)
        for begin in range(0, number, BEYOND_ACCURACY_ROWS):
            user = readers[begin : begin + BEYOND_ACCURACY_ROWS]
            zeros = np.zeros(user.size, np.uint32)
            yield self._people(user) | {
                "impression_id": zeros,
                "impression_time": times[begin : begin + BEYOND_ACCURACY_ROWS] * MICRO,
                "read_time": zeros.astype(np.float32),
                "scroll_percentage": pa.nulls(user.size, pa.float32()),
                "device_type": self.readers.device[user],
                "article_ids_inview": list_column(np.full(user.size, slate.size), np.tile(slate, user.size)),
                "session_id": zeros,
                "is_beyond_accuracy": np.ones(user.size, bool),
            }

    def clicks(self, chunk: Places, weeks: Sequence[simulate.Week]) -> Places:
        """Simulate clicks for histories, those of all ``weeks`` but the last included, as ``simulate_histories``."""
        early, middle, late, latest = self.readers.history[:, chunk]
        none = np.zeros_like(latest)
        runs = ((24, [early, middle, late]), (27, [none, none, latest]))
        clicks = [
            simulate.simulate_histories(self._key(purpose), self.site, chunk, np.stack(parts), week)
            for (purpose, parts), week in zip(runs, weeks[:-1], strict=False)
        ]
        return clicks[0] if len(clicks) == 1 else np.concatenate(clicks, axis=1)

    def history(self, split: int, chunk: Places, clicks: Places) -> dict[str, Any]:
        """Return the columns of the histories of a chunk: of readers in a week, clicks of the three weeks before."""
        begin = TRAIN_BEGIN + split * WEEK
        inside = self.readers.counts[split] > 0
        events, articles = clicks
        times = events & SECONDS
        kept = np.flatnonzero(inside[events >> 32] & (times >= begin - 3 * WEEK) & (times < begin))
        kept = kept[np.argsort(events[kept], kind="stable")]
        events, articles = events[kept], articles[kept]
        sizes = np.bincount((events >> 32) - chunk[0], minlength=chunk.size)[inside[chunk]]
        read, scrolled = self._outcome(events)
        return {
            "user_id": self.user_id[chunk[inside[chunk]]],
            "impression_time_fixed": list_column(sizes, (events & SECONDS) * MICRO),
            "scroll_percentage_fixed": list_column(sizes, scrolled),
            "article_id_fixed": list_column(sizes, self.articles.article_id[articles]),
            "read_time_fixed": list_column(sizes, read),
        }

    def _people(self, user: Places) -> dict[str, Any]:
        """Return the columns of the behaviours that tell of the reader; what is unknown is null."""
        readers = self.readers
        unknown = {name: getattr(readers, name)[user] for name in ("gender", "postcode", "age")}
        return {name: pa.array(values, mask=values < 0) for name, values in unknown.items()} | {
            "user_id": self.user_id[user],
            "is_sso_user": readers.sso[user],
            "is_subscriber": readers.subscriber[user],
        }

    def _outcome(self, events: Places) -> tuple[NDArray[np.float32], pa.Array]:
        """Return seconds read and share scrolled of the articles clicked, the same wherever an event is recorded."""
        read = np.rint(np.interp(self._uniforms(12, events), READ_PROBABILITIES, READ_NEXT))
        return read.astype(np.float32), self._scrolled(13, events, NULL_NEXT_SCROLL)

    def _scrolled(self, purpose: int, events: Places, null: Floats | float) -> pa.Array:
        # Half of the readers reach the end of the page.
        depth = np.minimum(100.0, 12.0 + 176.0 * self._uniforms(purpose, events))
        return pa.array(depth.astype(np.float32), mask=self._uniforms(purpose + 10, events) < null)


def _inverse_beta() -> Floats:
    """Return a slate's expected share of old articles at evenly spaced probabilities."""
    share = (np.arange(20_000) + 0.5) / 20_000
    density = share ** (OLD_SHARE_ALPHA - 1) * (1 - share) ** (OLD_SHARE_BETA - 1)
    cumulative = np.cumsum(density) / density.sum()
    return np.interp(np.linspace(0, 1, 513), cumulative, share)
