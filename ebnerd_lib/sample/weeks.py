"""The behaviours and the histories of both weeks, simulated and written a chunk of readers at a time."""

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ebnerd_lib.data.layout import SPLITS
from ebnerd_lib.data.schema import BEHAVIORS, HISTORY, arrow_schema
from ebnerd_lib.sample.articles import TRAIN_BEGIN, WEEK, Articles, list_column, table_of
from ebnerd_lib.sample.audience import KEPT_CLICKS, Audience
from ebnerd_lib.sample.random import hashed_uniforms, scramble, stream_key
from ebnerd_lib.sample.simulate import (
    Choice,
    Pools,
    Traits,
    simulate_histories,
    simulate_week,
)

ROW_GROUP = {"behaviors": 1 << 18, "history": 1 << 14}

CHOICE = Choice(
    category_taste=0.25,
    topic_taste=0.2,
    premium_subscriber=1.0,
    fatigue=0.7,
    clicked_before=-2.3197,
    own_article=-2.5123,
    clicked_hidden=0.3,
    depth=3.5,
    depth_spread=1.0,
    history_old=0.0421,
    history_repeat=0.03,
)

# Share of a day's impressions by hour as stored, percent, and of the week's days from Thursday on.
HOURS = (
    0.7, 0.5, 0.7, 2.0, 4.4, 6.3, 6.8, 6.2, 5.0, 4.7, 4.6, 4.6, 4.5, 4.4, 4.5, 4.7, 5.0, 5.5, 5.8, 6.0, 5.7,
    4.3, 2.7, 1.5,
)  # fmt: skip
DAYS = (1.0, 0.97, 0.93, 1.0, 1.04, 1.03, 1.03)

# Inverse distribution functions: probability, then value.
SLATE_SIZES = (
    ((0, .176, .314, .417, .503, .577, .75, .90, .95, .99, 1), (4, 5, 6, 7, 8, 9, 13, 21, 28, 42, 100)),
    ((0, .168, .300, .400, .484, .556, .75, .90, .95, .99, 1), (4, 5, 6, 7, 8, 9, 14, 23, 30, 51, 93)),
)  # fmt: skip
WEEK_STREAMS = (20, 21, 26)  # purposes of the draws: train, validation, test
OLD_SHARE_ALPHA, OLD_SHARE_BETA = 0.8, 3.2
READ_PROBABILITIES = (0, 0.05, 0.25, 0.5, 0.75, 0.9, 0.96, 0.99, 1)
READ_FRONT = (0, 2, 7, 17, 32, 55, 90, 220, 1200)
READ_ARTICLE = (0, 4, 22, 50, 82, 122, 210, 470, 1800)
READ_NEXT = (0, 0, 5, 21, 60, 130, 260, 1010, 1800)
NULL_SCROLL_ON_ARTICLE, NULL_NEXT_READ, NULL_NEXT_SCROLL = 0.012, 0.027, 0.112


def traffic() -> NDArray[np.float64]:
    """Return the share of a week's impressions in each of its 168 hours, the first being Thursday 07:00."""
    shares = np.outer(DAYS, HOURS).ravel()
    shares = np.roll(shares, -7)
    return shares / shares.sum()


def _inverse_beta() -> NDArray[np.float64]:
    """Return a slate's expected share of old articles at evenly spaced probabilities."""
    share = (np.arange(20_000) + 0.5) / 20_000
    density = share ** (OLD_SHARE_ALPHA - 1) * (1 - share) ** (OLD_SHARE_BETA - 1)
    cumulative = np.cumsum(density) / density.sum()
    return np.interp(np.linspace(0, 1, 513), cumulative, share)


@dataclass(frozen=True)
class Week:
    """A week of impressions of a chunk of readers; ``owner`` is the reader's place in the chunk, ``rows`` its first."""

    rows: NDArray[np.int64]
    owner: NDArray[np.int64]
    times: NDArray[np.int64]
    opens: NDArray[np.bool_]
    pages: NDArray[np.int32]
    slate_start: NDArray[np.int64]
    slates: NDArray[np.int32]
    click_start: NDArray[np.int64]
    clicks: NDArray[np.int32]


class RowGroups:
    """A parquet file written in row groups of a fixed size, whatever the size of what is put in.

    Each row group is sorted by its first column, an id without order, so that rows of a reader lie apart.
    """

    def __init__(self, path: Path, schema: pa.Schema, rows: int):
        self._writer = pq.ParquetWriter(path, schema)
        self._rows = rows
        self._waiting: list[pa.Table] = []
        self._held = 0

    def put(self, table: pa.Table) -> None:
        """Add rows, writing all row groups that are full."""
        self._waiting.append(table)
        self._held += table.num_rows
        if self._held >= self._rows:
            whole = pa.concat_tables(self._waiting)
            while whole.num_rows >= self._rows:
                self._write(whole.slice(0, self._rows))
                whole = whole.slice(self._rows)
            self._waiting, self._held = [whole], whole.num_rows

    def flush(self) -> None:
        """Write what is held; what is put in afterwards starts a row group of its own."""
        if self._held:
            self._write(pa.concat_tables(self._waiting))
        self._waiting, self._held = [], 0

    def _write(self, table: pa.Table) -> None:
        order = np.argsort(table.column(0).to_numpy(), kind="stable")
        self._writer.write_table(table.take(pa.array(order)).combine_chunks(), row_group_size=self._rows)

    def __enter__(self) -> "RowGroups":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.flush()
        self._writer.close()


def write_weeks(
    bundle: Path, seed: int, catalogue: Articles, audience: Audience, pools: Pools, chunk_users: int
) -> None:
    """Write behaviours and histories of both splits.

    Args:
        bundle: Folder of the bundle.
        seed: Seed of the sample.
        catalogue: The articles.
        audience: The readers.
        pools: What may be shown and read.
        chunk_users: How many readers to simulate at once; bounds memory and changes nothing else.
    """
    files = []
    for folder in SPLITS:
        (bundle / folder).mkdir()
        for name, schema in (("behaviors", BEHAVIORS), ("history", HISTORY)):
            path = bundle / folder / f"{name}.parquet"
            files.append(RowGroups(path, arrow_schema(schema), ROW_GROUP[name]))
    site = Site(seed, catalogue, audience, pools)
    with files[0], files[1], files[2], files[3]:
        for begin in range(0, len(audience), chunk_users):
            chunk = np.arange(begin, min(begin + chunk_users, len(audience)))
            weeks = [site.week(split, chunk) for split in (0, 1)]
            for split in (0, 1):
                files[2 * split].put(site.behaviors(split, chunk, weeks[split]))
            for split, table in enumerate(site.histories(chunk, weeks[0])):
                files[2 * split + 1].put(table)


class Site:
    """The site and its readers: makes the rows of any chunk of them."""

    def __init__(self, seed: int, catalogue: Articles, audience: Audience, pools: Pools):
        self.seed = seed
        self.catalogue = catalogue
        self.audience = audience
        self.pools = pools
        self.traits = Traits(catalogue.category, catalogue.topic, catalogue.premium)
        self.profile = np.cumsum(traffic())
        self.old_shares = _inverse_beta()
        counts = audience.counts
        # Rows are numbered through the weeks, so that ids made of the numbers are unique over all of them.
        weeks_before = np.cumsum(counts.sum(axis=1)) - counts.sum(axis=1)
        self.first_row = np.pad(np.cumsum(counts, axis=1), ((0, 0), (1, 0))) + weeks_before[:, None]

    @property
    def rows(self) -> int:
        """Number of rows of all weeks."""
        return int(self.first_row[-1, -1])

    def _draws(self, purpose: int, counters: NDArray[np.integer]) -> NDArray[np.float64]:
        return hashed_uniforms(stream_key(self.seed, purpose), counters)

    def week(self, split: int, chunk: NDArray[np.int64]) -> Week:
        """Simulate a week of the readers of a chunk; those absent have no rows."""
        counts = self.audience.counts[split, chunk]
        rows = np.concatenate([[0], np.cumsum(counts)])
        ordinal = self.first_row[split, chunk[0]] + np.arange(rows[-1])
        sizes = np.ceil(np.interp(self._draws(10, ordinal), *SLATE_SIZES[min(split, 1)])).astype(np.int64).clip(5)
        luck = self._draws(11, ordinal)
        clicked = 1 + (luck < 0.0053).astype(np.int64) + (luck < 0.0007)
        slate_start = np.concatenate([[0], np.cumsum(sizes)])
        click_start = np.concatenate([[0], np.cumsum(clicked)])
        week = Week(
            rows=rows,
            owner=np.repeat(np.arange(chunk.size), counts),
            times=np.empty(rows[-1], np.int64),
            opens=np.empty(rows[-1], np.bool_),
            pages=np.empty(rows[-1], np.int32),
            slate_start=slate_start,
            slates=np.empty(slate_start[-1], np.int32),
            click_start=click_start,
            clicks=np.empty(click_start[-1], np.int32),
        )
        simulate_week(
            stream_key(self.seed, WEEK_STREAMS[split]), stream_key(self.seed, 22), chunk, rows,
            self.audience.subscriber[chunk], TRAIN_BEGIN + split * WEEK, self.profile, self.old_shares,
            slate_start, click_start, self.pools, self.traits, CHOICE,
            week.times, week.opens, week.pages, week.slates, week.clicks,
        )  # fmt: skip
        return week

    def _events(self, users: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return a counter for a reader's click, the same wherever the click is told."""
        return users * (1 << 32) + times

    def _outcome(self, events: NDArray[np.int64]) -> tuple[NDArray[np.float32], pa.Array]:
        """Return seconds read and share scrolled of the articles clicked."""
        read = np.rint(np.interp(self._draws(12, events), READ_PROBABILITIES, READ_NEXT))
        return read.astype(np.float32), self._scrolled(13, events, NULL_NEXT_SCROLL)

    def _scrolled(self, purpose: int, events: NDArray[np.int64], null: NDArray[np.float64] | float) -> pa.Array:
        # Half of the readers reach the end of the page.
        depth = np.minimum(100.0, 12.0 + 176.0 * self._draws(purpose, events))
        return pa.array(depth.astype(np.float32), mask=self._draws(purpose + 10, events) < null)

    def behaviors(self, split: int, chunk: NDArray[np.int64], week: Week) -> pa.Table:
        """Return the behaviours of a chunk as a table of the schema's types."""
        audience, ids = self.audience, self.catalogue.article_id
        user = chunk[week.owner]
        first = self.first_row[split, chunk[0]]
        ordinal = first + np.arange(user.size)
        visit = first + np.maximum.accumulate(np.where(week.opens, np.arange(user.size), 0))
        front = week.pages < 0
        draw = self._draws(14, ordinal)
        read = np.where(
            front,
            np.interp(draw, READ_PROBABILITIES, READ_FRONT),
            np.interp(draw, READ_PROBABILITIES, READ_ARTICLE),
        )
        other = (self._draws(15, visit) < 0.35) & (audience.second_device[user] > 0)
        next_read, next_scroll = self._outcome(self._events(user, week.times))
        columns = {
            "impression_id": scramble(ordinal, stream_key(self.seed, 16), 32),
            "article_id": pa.array(ids[week.pages], mask=front),
            "impression_time": (week.times * 1_000_000).astype("datetime64[us]"),
            "read_time": np.rint(read).astype(np.float32),
            "scroll_percentage": self._scrolled(
                17, ordinal, np.where(front, 1.0, NULL_SCROLL_ON_ARTICLE)
            ),
            "device_type": np.where(other, audience.second_device[user], audience.device[user]),
            "article_ids_inview": list_column(np.diff(week.slate_start), ids[week.slates]),
            "article_ids_clicked": list_column(np.diff(week.click_start), ids[week.clicks]),
            "user_id": audience.user_id[user],
            "is_sso_user": audience.sso[user],
            "gender": nullable(audience.gender[user]),
            "postcode": nullable(audience.postcode[user]),
            "age": nullable(audience.age[user]),
            "is_subscriber": audience.subscriber[user],
            "session_id": scramble(visit, stream_key(self.seed, 18), 32),
            "next_read_time": pa.array(next_read, mask=self._draws(19, ordinal) < NULL_NEXT_READ),
            "next_scroll_percentage": next_scroll,
        }  # fmt: skip
        return table_of(columns, BEHAVIORS)

    def histories(self, chunk: NDArray[np.int64], week: Week) -> tuple[pa.Table, pa.Table]:
        """Return both histories of the readers of a chunk; ``week`` is their train week."""
        audience = self.audience
        inside = audience.counts[:2, chunk] > 0
        parts = (audience.early[chunk], audience.middle[chunk], audience.late[chunk])
        clicks = self._clicks(24, chunk, parts, inside, TRAIN_BEGIN, week)
        train, validation = (self._history(chunk[inside[split]], clicks[split]) for split in (0, 1))
        return train, validation

    def test_history(
        self, chunk: NDArray[np.int64], latest: NDArray[np.int64], train: Week, validation: Week
    ) -> pa.Table:
        """Return the test histories of the readers of a chunk: the last three weeks before the test week.

        Args:
            chunk: Ordinals of the readers.
            latest: Their clicks in the validation week other than those of its impressions.
            train: Their train week.
            validation: Their validation week.
        """
        audience = self.audience
        inside = np.stack([np.zeros(chunk.size, bool), audience.counts[2, chunk] > 0])
        parts = (audience.early[chunk], audience.middle[chunk], audience.late[chunk])
        former = self._clicks(24, chunk, parts, inside, TRAIN_BEGIN, train)[1]
        none = np.zeros(chunk.size, np.int64)
        later = self._clicks(27, chunk, (none, none, latest), inside, TRAIN_BEGIN + WEEK, validation)[1]
        return self._history(chunk[inside[1]], _followed(_since(former, TRAIN_BEGIN - WEEK), later))

    def _clicks(
        self,
        purpose: int,
        chunk: NDArray[np.int64],
        parts: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
        inside: NDArray[np.bool_],
        begin: int,
        week: Week,
    ) -> "tuple[_Clicks, _Clicks]":
        """Return the clicks known when the week at ``begin`` starts, and when it is over, of the readers ``inside``."""
        click_rows = week.click_start[week.rows]
        clicked_row = np.repeat(np.arange(week.times.size), np.diff(week.click_start))
        capacity = int(sum(part.sum() for part in parts)) + week.clicks.size
        times = np.empty((2, capacity), np.int64)
        articles = np.empty((2, capacity), np.int32)
        starts = np.empty((2, chunk.size + 1), np.int64)
        simulate_histories(
            stream_key(self.seed, purpose), stream_key(self.seed, 22), chunk, *parts, inside[0], inside[1], begin,
            self.profile, click_rows, week.times[clicked_row], week.clicks, KEPT_CLICKS, self.pools, self.traits,
            CHOICE, times, articles, starts[0], starts[1],
        )  # fmt: skip
        known, after = (
            _Clicks(
                np.append(starts[i][:-1][inside[i]], starts[i][-1]),
                times[i][: starts[i][-1]],
                articles[i][: starts[i][-1]],
            )
            for i in (0, 1)
        )
        return known, after

    def _history(self, readers: NDArray[np.int64], clicks: "_Clicks") -> pa.Table:
        events = self._events(np.repeat(readers, np.diff(clicks.start)), clicks.times)
        read, scrolled = self._outcome(events)
        columns = {
            "user_id": self.audience.user_id[readers],
            "impression_time_fixed": list_column(
                np.diff(clicks.start), (clicks.times * 1_000_000).astype("datetime64[us]")
            ),
            "scroll_percentage_fixed": list_column(np.diff(clicks.start), scrolled),
            "article_id_fixed": list_column(np.diff(clicks.start), self.catalogue.article_id[clicks.articles]),
            "read_time_fixed": list_column(np.diff(clicks.start), read),
        }
        return table_of(columns, HISTORY)


class _Clicks(NamedTuple):
    """Clicks of some readers in order of time, one reader after the other."""

    start: NDArray[np.int64]  # reader -> its first click; one entry more than readers
    times: NDArray[np.int64]
    articles: NDArray[np.int32]


def _since(clicks: _Clicks, begin: int) -> _Clicks:
    """Return the clicks at ``begin`` or later."""
    kept = clicks.times >= begin
    before = np.concatenate([[0], np.cumsum(kept)])
    return _Clicks(before[clicks.start], clicks.times[kept], clicks.articles[kept])


def _followed(former: _Clicks, later: _Clicks) -> _Clicks:
    """Return each reader's former clicks followed by the later ones."""
    owner = np.concatenate([np.repeat(np.arange(part.start.size - 1), np.diff(part.start)) for part in (former, later)])
    order = np.argsort(owner, kind="stable")
    return _Clicks(
        former.start + later.start,
        np.concatenate([former.times, later.times])[order],
        np.concatenate([former.articles, later.articles])[order],
    )


def nullable(values: NDArray[np.int8]) -> pa.Array:
    """Return a column that is null where ``values`` is negative."""
    return pa.array(values, mask=values < 0)
