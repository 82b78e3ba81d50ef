"""The hidden week and the week before it: read once to disk, then handed out a group of users at a time.

What an article did is told by a timeline of everybody's impressions, on disk. What a user did is told by the user's own
impressions and history, so these need to be in memory for the users of one group only.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import pandas as pd
import pyarrow as pa

from ebnerd_lib.data.bundle import Bundle, History
from ebnerd_lib.data.dataset import Dataset, article_table, article_vectors
from ebnerd_lib.data.hidden import Impressions, read_clicks, read_impressions
from ebnerd_lib.data.layout import SPLITS, TEST, VECTORS, check_files, check_hidden_files, generated_stamp
from ebnerd_lib.data.ragged import Ragged
from ebnerd_lib.data.schema import BEHAVIORS, TEST_BEHAVIORS
from ebnerd_lib.data.slates import Slates, concatenate
from ebnerd_lib.data.vocabulary import Vocabulary
from ebnerd_lib.features.context import FeatureContext
from ebnerd_lib.features.events import Timeline

Progress = Callable[[str, float], None]
"""Called with a step and the share of it that is done."""
_ARTICLE_COLUMNS = (
    "article_id", "premium", "published_time", "category", "topics", "sentiment_score", "sentiment_label",
)  # fmt: skip
_SORTED = 1 << 16  # impressions put in order at a time
_LOOKED_UP = 1 << 20  # articles looked up at a time


@dataclass(frozen=True)
class Group:
    """Some users of the hidden week.

    Attributes:
        rows: int64 (n,), rows of the test file.
        slates: what is to be ranked there.
        context: the past of everybody's articles and of these users.
        dataset: tables by the same indices.
    """

    rows: np.ndarray
    slates: Slates
    context: FeatureContext
    dataset: Dataset


@dataclass(frozen=True)
class _Log:
    """Impressions in file order, by index of the user, with their candidates on disk."""

    time: np.ndarray
    user: np.ndarray
    device: np.ndarray
    subscriber: np.ndarray
    session: np.ndarray
    candidates: Ragged


class HiddenWeek:
    """A test set opened for ranking; a context that removes nothing but closes its files.

    Args:
        test: the hidden-test bundle.
        before: a bundle whose validation week ends where the hidden week begins: what was in view there is past.
            Impressions of it that are not before the first of the test set are left out.
        folder: an existing folder for some gigabytes of working files.
        progress: told how far the reading is.

    Attributes:
        impression_id: uint32 (n,), in the order of the test file.
        beyond: bool (n,), whether a row is for beyond-accuracy measures.
        offsets: int64 (n + 1,), where the slates of the test file begin.
        before: impressions of the week before that count as past.
        overlapping: impressions of the week before that are left out.
        generated: how the test set was generated, ``None`` for real data.

    Raises:
        BundleError: a file is missing, malformed or contradicts itself.
    """

    def __init__(self, test: Path, before: Path, folder: Path, progress: Progress) -> None:
        check_hidden_files(test)
        check_files(before)
        self.generated = generated_stamp(test)
        self._folder, self._progress, self._stack = folder, progress, ExitStack()
        with ExitStack() as opened:
            asked, in_test = self._read(opened, test / TEST / "behaviors.parquet", TEST_BEHAVIORS, "asked")
            past, in_past = self._read(opened, before / SPLITS[1] / "behaviors.parquet", BEHAVIORS, "before")
            clicked = opened.enter_context(Ragged(folder / "clicked", np.int32))
            clicked_at = opened.enter_context(Ragged(folder / "clicked_at", np.int64))
            path = test / TEST / "history.parquet"
            readers, in_history = read_clicks(path, clicked, clicked_at, self._step(path))
            self._timeline_files = {
                name: opened.enter_context(Ragged(folder / f"timeline_{name}", kind))
                for name, kind in (
                    ("time", np.int64), ("offsets", np.int64), ("article", np.int32), ("length", np.int32),
                    ("subscriber", np.bool_),
                )
            }  # fmt: skip
            self._stack = opened.pop_all()
        pa.default_memory_pool().release_unused()  # what reading took
        table = Bundle(test, self.generated).articles(_ARTICLE_COLUMNS)
        ids = np.concatenate([table["article_id"].to_numpy(), in_test, in_past, in_history])
        self.articles = Vocabulary(ids)
        self.users = Vocabulary(np.concatenate([asked[0].user_id, past[0].user_id, readers]))
        self.impression_id, self.beyond = asked[0].impression_id, asked[0].beyond
        self._asked, self._past = self._log(*asked), self._log(*past)
        self._readers, self._clicked, self._clicked_at = self.users.index_of(readers), clicked, clicked_at
        self.offsets = self._asked.candidates.offsets
        self._early = self._past.time < self._asked.time.min()
        self.before, self.overlapping = int(self._early.sum()), int((~self._early).sum())
        self._articles = article_table(table, self.articles)
        self._vectors = article_vectors(_vectors(test, before), self.articles)
        self._timeline = self._write_timeline()

    def __len__(self) -> int:
        """Return the number of rows of the test file."""
        return len(self.impression_id)

    @property
    def candidates(self) -> int:
        """The number of candidates over all slates of the test file."""
        return int(self.offsets[-1])

    @property
    def seen_before(self) -> int:
        """The number of candidates in the week before."""
        return int(np.diff(self._past.candidates.offsets)[self._early].sum())

    @property
    def seen(self) -> int:
        """The number of candidates of the hidden week, those for beyond-accuracy measures left out."""
        return int(np.diff(self.offsets)[~self.beyond].sum())

    def groups(self, count: int) -> Iterator[Group]:
        """Yield all users in ``count`` groups of about equal size."""
        known = Dataset(
            self._articles, pd.DataFrame({"user_id": np.append(np.uint32(0), self.users.ids)}), {}, [], self._vectors
        )
        for number in range(count):
            rows = np.flatnonzero(self._asked.user % count == number)
            if len(rows):
                yield self._group(known, rows, count, number)  # not kept here, so that one is in memory at a time

    def _group(self, known: Dataset, rows: np.ndarray, count: int, number: int) -> Group:
        earlier = np.flatnonzero(self._early & (self._past.user % count == number))
        log = concatenate(
            [self._slates(self._past, earlier, 0), self._slates(self._asked, rows[~self.beyond[rows]], 1)]
        )
        mine = np.flatnonzero(self._readers % count == number)
        histories = [self._history(mine[:0]), self._history(mine)]
        context = FeatureContext(log, known.metadata, histories, len(self.users), self._timeline)
        dataset = Dataset(known.articles, known.users, {}, histories, known.vectors)
        return Group(rows, self._slates(self._asked, rows, 1), context, dataset)

    def release(self) -> None:
        """Let go of the memory of the timeline's parts that were walked over."""
        for file in self._timeline_files.values():
            file.release()

    def __enter__(self) -> "HiddenWeek":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _step(self, path: Path) -> Callable[[float], None]:
        return lambda share: self._progress(f"reading {path.parent.name}/{path.name}", share)

    def _read(
        self, opened: ExitStack, path: Path, table: dict[str, pa.DataType], name: str
    ) -> tuple[tuple[Impressions, Ragged], np.ndarray]:
        candidates = opened.enter_context(Ragged(self._folder / name, np.int32))
        impressions, seen = read_impressions(path, table, candidates, self._step(path))
        return (impressions, candidates), seen

    def _log(self, impressions: Impressions, candidates: Ragged) -> _Log:
        return _Log(
            impressions.time, self.users.index_of(impressions.user_id), impressions.device, impressions.subscriber,
            impressions.session, candidates,
        )  # fmt: skip

    def _write_timeline(self) -> Timeline:
        """Put what was in view in order of time: the week before, then the hidden week."""
        shown = [(self._past, np.flatnonzero(self._early)), (self._asked, np.flatnonzero(~self.beyond))]
        whole, done, end = sum(len(rows) for _, rows in shown), 0, np.zeros(1, np.int64)
        self._append_to_timeline(offsets=end)
        for log, rows in shown:
            order = rows[np.argsort(log.time[rows], kind="stable")]
            for start in range(0, len(order), _SORTED):
                some = order[start : start + _SORTED]
                lengths = log.candidates.lengths(some)
                end = end[-1] + np.cumsum(lengths)
                article = self.articles.index_of(log.candidates.take(some))
                self._append_to_timeline(
                    time=log.time[some], offsets=end, article=article, length=lengths, subscriber=log.subscriber[some]
                )
                done += len(some)
                self._progress("putting impressions in order of time", done / whole)
        files = self._timeline_files
        return Timeline(front_page=np.zeros(whole, bool), **{name: file.values() for name, file in files.items()})

    def _append_to_timeline(self, **columns: np.ndarray) -> None:
        for name, values in columns.items():
            self._timeline_files[name].append(values, np.array([len(values)]))

    def _slates(self, log: _Log, rows: np.ndarray, week: int) -> Slates:
        article_id = log.candidates.take(rows)
        article = np.empty_like(article_id)
        for start in range(0, len(article), _LOOKED_UP):
            article[start : start + _LOOKED_UP] = self.articles.index_of(article_id[start : start + _LOOKED_UP])
        return Slates(
            impression_id=rows.astype(np.uint32),
            user_id=self.users.id_of(log.user[rows]),
            user=log.user[rows],
            time=log.time[rows],
            session=log.session[rows].astype(np.int64) * 2 + week,  # session ids are unique within a week only
            device=log.device[rows],
            subscriber=log.subscriber[rows],
            page=np.zeros(len(rows), np.int32),
            front_page=np.zeros(len(rows), bool),
            week=np.full(len(rows), week, np.int8),
            offsets=np.concatenate(([0], np.cumsum(log.candidates.lengths(rows)))),
            article_id=article_id,
            article=article,
            clicked=np.zeros(len(article_id), bool),
        )

    def _history(self, rows: np.ndarray) -> History:
        lengths = self._clicked.lengths(rows)
        article, time = self.articles.index_of(self._clicked.take(rows)), self._clicked_at.take(rows)
        owner = np.repeat(self._readers[rows], lengths)
        order = np.lexsort((time, owner))
        counts = np.bincount(owner, minlength=len(self.users))
        offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        return History(offsets, article[order], time[order])


def _vectors(test: Path, before: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the article vectors of the first of the two bundles that has them: EBNeRD's are the same for all."""
    found = [path for path in (test, before) if (path / VECTORS).exists()]
    return Bundle(found[0], None).vectors() if found else None
