"""Rank every slate of the hidden test set with a trained model and write the file to send; check such a file.

It is a zip with ``predictions.txt``, one line a row of the test file, in order. A line is
``<impression_id> [r1,r2,…]`` where ``ri`` is the rank (1 is best) of the i-th article of the row's
``article_ids_inview``: the ranks are a permutation of 1 to the length of the slate.
"""

import contextlib
import datetime
import itertools
import os
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from ebnerd_lib.data.bundle import batches, open_bundle
from ebnerd_lib.data.dataset import BEYOND, Dataset, prepare_hidden
from ebnerd_lib.data.layout import SPLITS, TEST, check_files
from ebnerd_lib.data.schema import TEST_BEHAVIORS, list_lengths
from ebnerd_lib.data.slates import candidate_rows, concatenate, large_zeros
from ebnerd_lib.errors import SubmissionError
from ebnerd_lib.features.build import compute_features
from ebnerd_lib.features.context import feature_context
from ebnerd_lib.pipeline import paths
from ebnerd_lib.pipeline.params import load_config
from ebnerd_lib.pipeline.paths import PREPROCESSED, ROOT, StagePaths
from ebnerd_lib.pipeline.stale import sha256
from ebnerd_lib.training.model_file import TrainedModel, find_model_file, load_model

MEMBER = "predictions.txt"
_ROWS = 1 << 16  # rows written or read at a time
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same bytes on every day
_LINE = r"^(?P<id>[0-9]{1,11}) \[(?P<ranks>[0-9]{1,10}(?:,[0-9]{1,10})*)\]$"
_FAULTS = (
    "is not of the form `<impression_id> [r1,r2,…]`, without spaces inside the brackets",
    "has another impression_id than its row of the test file",
    "has not as many ranks as its row of the test file has candidates",
    "has ranks that are no permutation of 1 to the number of candidates",
)
_OTHER_SCALE = 3.0


def submit(profile: str, model_name: str, test: Path, out: Path) -> Path:
    """Write a submission of a model of a profile.

    What was in view in the profile's validation week, and in the hidden week itself strictly before each impression, is
    the past; ids are looked up among those that the model, of tier ``exposure`` or below, saw in training. Writes the
    zip file, which is returned, and beside it a record that ends in ``.json``.

    Raises:
        ConfigError: there is no such profile.
        StageError: the model was not trained.
        BundleError: a file of the test set or of the profile's bundle is missing or malformed.
        SubmissionError: the model knows clicks, scores something that is no number, or the disk is full.
    """
    start, began = time.monotonic(), datetime.datetime.now(datetime.UTC)
    if out.suffix != ".zip":
        raise SubmissionError(f"{out}: a submission is a zip file. Name it predictions.zip, for example.")
    folders = [StagePaths(profile, stage).artifacts for stage in paths.profile_stages(profile)]
    file = find_model_file(model_name, folders)
    model = load_model(file)
    _check_tier(model)
    before = ROOT / load_config(profile, PREPROCESSED).parameters["bundle"]
    inputs = check_files(test, (TEST,))
    hidden = open_bundle(test, (TEST,))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out.parent).close()  # whether it can be written shows before the work is done
        print(f"reading {test / TEST} and {before / SPLITS[1]}")
        dataset, left_out = prepare_hidden(open_bundle(before), hidden)
        week, shown, beyond = dataset.parts.values()
        print(f"{len(shown):,} rows, {len(beyond):,} more for beyond-accuracy measures; {len(week):,} a week before")
        if left_out:
            print(f"note: {left_out:,} impressions of that week are not before the first one of {TEST}: left out")
        ratio = shown.candidates / max(week.candidates, 1)
        if not 1 / _OTHER_SCALE < ratio < _OTHER_SCALE:
            told = f"articles were in view {ratio:.3g} times as often as in the week before, on whose scale it counts"
            print(f"note: {told}. Train on a bundle of the same scale: ebnerd_large for ebnerd_testset.")
        with step_bar(f"ranking with {model.name}") as progress:
            impression_id, offsets, ranks = rank(model, dataset, progress)
        with step_bar(f"writing {out.name}") as progress:
            write_predictions(out, impression_id, offsets, ranks, progress)
    except OSError as error:
        raise SubmissionError(
            f"{out}: cannot be written ({error.strerror or error}). Free space in {out.parent}, and for working files "
            f"in {tempfile.gettempdir()}, or name other folders with --out and the environment variable TMPDIR."
        ) from error
    seconds, memory = time.monotonic() - start, paths.peak_memory_mb()
    record = {
        "profile": profile, "model": model.name, "tier": model.tier, "model_sha256": sha256(file),
        "rows": len(impression_id), "candidates": len(ranks), "beyond_accuracy": len(dataset.parts[BEYOND]),
        "impressions_before": len(dataset.parts["validation"]), "generated": hidden.generated, **paths.environment(),
        "inputs": {f"{path.relative_to(test)}": sha256(path) for path in inputs}, "sha256": sha256(out),
        "started": began.isoformat(timespec="seconds"), "duration_seconds": round(seconds, 1), "peak_memory_mb": memory,
    }  # fmt: skip
    paths.write_json(out.with_suffix(".json"), record)
    print(
        f"{out}: {len(impression_id):,} rows ranked by {model.name} (tier {model.tier}) in {seconds:.0f} s, "
        f"{memory:,.0f} MB at the most. Check it with `python -m ebnerd_lib check-submission`."
    )
    return out


def rank(
    model: TrainedModel, dataset: Dataset, progress: Callable[[float], None]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rank the candidates of every row of a hidden test.

    Returns:
        Ids of impressions (n,), where their slates begin (n + 1,), and ranks (m,), in the order of the test file.

    Raises:
        SubmissionError: a score is no number.
    """
    asked = concatenate([dataset.parts["test"], dataset.parts[BEYOND]])
    order = asked.file_order
    offsets = np.concatenate(([0], np.cumsum(asked.lengths[order])))
    ranks = large_zeros(asked.candidates, np.min_scalar_type(int(asked.lengths.max())))
    done = 0
    for _, slates, features in compute_features(asked, feature_context(dataset), model.columns):
        scores = model.score(dataset, slates, features.select(model.columns), model.columns)
        lost = int((~np.isfinite(scores)).sum())
        if lost:
            raise SubmissionError(
                f"model {model.name}: {lost} of {len(scores)} scores are no finite numbers. Train it again."
            )
        ranks[candidate_rows(offsets, slates.row)] = ranks_of(scores, slates.offsets)
        done += len(scores)
        progress(done / asked.candidates)
    return asked.impression_id[order], offsets, ranks


def _check_tier(model: TrainedModel) -> None:
    """Refuse a model that cannot rank the pages of the hidden test."""
    if model.trained_on == "live":
        why = "it was trained to rank all that is live, and the hidden test asks for the order of pages"
    elif model.tier == "clicks":
        why = "tier clicks knows what was clicked before, and the hidden test does not tell the clicks of its week"
    else:
        return model.check(model.columns)
    raise SubmissionError(
        f"model {model.name}: {why}. Submit a model of tier exposure or below, trained on pages of the log, as "
        "03_train_mlp.exposure trains one."
    )


@contextlib.contextmanager
def step_bar(step: str) -> Iterator[Callable[[float], None]]:
    """Show how far a step is, and the time left; it is told the share done. A log gets a line every five seconds."""
    form = "{desc}: {percentage:.0f} %, {remaining} left"
    with tqdm(total=1.0, desc=step, mininterval=5, bar_format=form) as bar:

        def told(share: float) -> None:
            bar.update(share - bar.n)

        yield told


def ranks_of(scores: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the rank of each score within its slate: int32 (m,), 1 is the highest, ties in the order of the slate.

    >>> ranks_of(np.array([.1, .9, .5, 2., 2.]), np.array([0, 3, 5]))
    array([3, 1, 2, 1, 2], dtype=int32)
    """
    lengths = np.diff(offsets)
    slate = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((-scores, slate))
    ranks = np.empty(len(scores), np.int32)
    ranks[order] = np.arange(1, len(scores) + 1) - np.repeat(offsets[:-1], lengths)
    return ranks


def write_predictions(
    path: Path, impression_id: np.ndarray, offsets: np.ndarray, ranks: np.ndarray, progress: Callable[[float], None]
) -> None:
    """Write a submission under a temporary name and give it its own when it is whole; the same ranks, the same bytes.

    ``impression_id`` (n,), in the order of the test file, has its ranks in those of all (m,) between two ``offsets``.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    member = zipfile.ZipInfo(MEMBER, _EPOCH)
    member.compress_type = zipfile.ZIP_DEFLATED
    member.external_attr = 0o644 << 16
    try:
        with zipfile.ZipFile(temporary, "w") as archive, archive.open(member, "w", force_zip64=True) as stream:
            for start in range(0, len(impression_id), _ROWS):
                stop = min(start + _ROWS, len(impression_id))
                stream.write(_text(impression_id[start:stop], offsets[start : stop + 1], ranks))
                progress(stop / len(impression_id))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_submission(file: Path, test: Path) -> int:
    """Check every line of a submission, whoever wrote it: its id, and that its ranks are a permutation for its row.

    Returns the number of lines, all of them right.

    Raises:
        BundleError: the test set is incomplete or malformed.
        SubmissionError: the file is no zip, holds something else, has too few or too many lines, or lines are wrong:
            how many of each kind, and which is the first.
    """
    check_files(test, (TEST,))
    asked = [np.zeros((2, 0), np.int64)]
    names = ("impression_id", "article_ids_inview")
    for rows in batches(test / TEST / "behaviors.parquet", TEST_BEHAVIORS, names):
        asked.append(np.stack([rows["impression_id"].to_numpy(), list_lengths(rows["article_ids_inview"])]))
    (ids, lengths), lines = np.concatenate(asked, axis=1), 0
    found = np.zeros(len(ids), np.int8)
    with step_bar(f"checking {file.name}") as progress:
        for some in _lines(file):
            rows = slice(lines, lines + len(some))
            found[rows] = _faults(some[: len(ids[rows])], ids[rows], lengths[rows])
            lines += len(some)
            progress(min(1.0, lines / max(len(ids), 1)))
    wrong = []
    for number, text in enumerate(_FAULTS, 1):
        if len(places := np.flatnonzero(found == number)):
            wrong.append(f"line {places[0] + 1} {text} ({len(places)} such lines)")
    if lines != len(ids):
        wrong.append(f"{lines} lines for {len(ids)} rows of {TEST}/behaviors.parquet")
    if wrong:
        raise SubmissionError(
            f"{file}: {MEMBER}: {'; '.join(wrong)}. Write one line a row of the test file, in its order."
        )
    return lines


def _lines(path: Path) -> Iterator[list[bytes]]:
    """Yield the lines of a submission, without what ends them, some at a time.

    Raises:
        SubmissionError: the file is no zip, does not hold ``predictions.txt`` alone, or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if names != [MEMBER]:
                raise SubmissionError(f"{path}: holds {', '.join(names) or 'nothing'}; it must hold {MEMBER} alone.")
            with archive.open(MEMBER) as stream:
                while some := list(itertools.islice(stream, _ROWS)):
                    yield [line.removesuffix(b"\n") for line in some]
    except FileNotFoundError:
        raise SubmissionError(f"{path}: no such file. Write one with `python -m ebnerd_lib submit`.") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise SubmissionError(f"{path}: not a readable zip file ({error}). Write it again.") from error


def _text(ids: np.ndarray, offsets: np.ndarray, ranks: np.ndarray) -> bytes:
    """Return the lines of some rows, whose slates begin at ``offsets`` of all ``ranks``."""
    numbers = pa.array(ranks[offsets[0] : offsets[-1]]).cast(pa.string())
    lists = pa.ListArray.from_arrays(pa.array(offsets - offsets[0], pa.int32()), numbers)
    closed = pc.binary_join_element_wise(pc.binary_join(lists, ","), "]\n", "")
    lines = pc.binary_join_element_wise(pa.array(ids).cast(pa.string()), closed, " [")
    return "".join(lines.to_pylist()).encode()


def _faults(lines: list[bytes], impression_id: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the first fault of each line for its row of the test file: its number in ``_FAULTS``, 0 without one."""
    found = pc.extract_regex(pa.array(lines, pa.binary()), _LINE)
    formed = np.flatnonzero(found.is_valid())
    given, lists = found.drop_null().flatten()
    same = given.cast(pa.string()).cast(pa.int64()).to_numpy() == impression_id[formed]
    ranks = pc.split_pattern(lists.cast(pa.string()), ",")
    counts = pc.list_value_length(ranks).to_numpy()
    values = pc.list_flatten(ranks).cast(pa.int64()).to_numpy()
    line = np.repeat(np.arange(len(formed)), counts)
    wanted = np.arange(1, len(values) + 1) - np.repeat(np.cumsum(counts) - counts, counts)
    odd = np.zeros(len(formed), bool)
    odd[line[values[np.lexsort((values, line))] != wanted]] = True
    faults = np.ones(len(lines), np.int8)
    faults[formed] = np.select([~same, counts != lengths[formed], odd], [2, 3, 4])
    return faults
