"""A made-up news site that behaves like EBNeRD's: the sample bundles that everything runs on without the data.

Articles come out through the day, draw attention that decays within hours, and compete in slates of fresh,
popular and evergreen ones; readers have tastes, habits and a memory. The rules and constants were chosen so that
published aggregates of EBNeRD hold and so that scorers rank on the sample as they do on the data. Nothing here is
a row of EBNeRD.
"""

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ebnerd_lib.data.layout import TEST
from ebnerd_lib.errors import BundleError, ConfigError
from ebnerd_lib.sample.articles import (
    END,
    TEST_END,
    Articles,
    article_table,
    joined,
    sample_articles,
    sample_later_articles,
    vector_table,
)
from ebnerd_lib.sample.audience import continue_audience, draw_audience
from ebnerd_lib.sample.hidden import write_test
from ebnerd_lib.sample.pools import build_pools, expected_totals, joined_pools
from ebnerd_lib.sample.simulate import Pools
from ebnerd_lib.sample.weeks import traffic, write_weeks

GENERATOR_VERSION = 1
MARK = "generated.json"


@dataclass(frozen=True)
class Size:
    """Counts of a bundle: pairs are of the train and the validation week.

    Attributes:
        impressions: Rows of the behaviours.
        users: Users in them.
        distinct_users: Users of either week.
        articles: Articles published by the end of the validation week.
        daily_articles: Articles published in a day of the weeks that are covered.
        test_impressions: Rows of the hidden test week, those for beyond-accuracy measures included.
        beyond_accuracy: Of these, the rows for beyond-accuracy measures.
        test_users: Users of the hidden test week.
    """

    impressions: tuple[int, int]
    users: tuple[int, int]
    distinct_users: int
    articles: int
    daily_articles: float
    test_impressions: int
    beyond_accuracy: int
    test_users: int


SIZES: dict[str, Size] = {
    "smoke": Size((2_000, 2_050), (126, 124), 150, 900, 19.0, 2_060, 60, 125),
    "demo": Size((24_724, 25_356), (1_590, 1_562), 1_935, 11_777, 119.0, 25_400, 400, 1_600),
    "small": Size((232_887, 244_647), (15_143, 15_342), 18_827, 20_738, 119.0, 244_000, 4_000, 15_500),
    "tenth": Size((1_206_389, 1_256_638), (78_809, 79_158), 97_500, 45_000, 119.0, 1_353_671, 20_000, 80_768),
    "large": Size((12_063_890, 12_566_385), (788_090, 791_582), 975_000, 125_541, 119.0, 13_536_710, 200_000, 807_677),
}
CHUNK_USERS = 16_384


def generate(out: Path, seed: int = 0, size: str = "demo", *, _chunk_users: int = CHUNK_USERS) -> None:
    """Write a made-up bundle: articles, both splits, article vectors, and ``generated.json`` last of all.

    The bundle is written beside ``out`` and takes its name when it is whole. The same seed and size give the same
    bytes.

    Args:
        out: Folder to write. It may exist if it is empty or holds a generated bundle, which is then replaced.
        seed: Seed of every draw, 0 or more.
        size: ``smoke``, ``demo``, ``small``, ``tenth`` or ``large``; ``demo``, ``small`` and ``large`` have the counts
            of EBNeRD's bundles, ``tenth`` a tenth of the last one's rows.

    Raises:
        ConfigError: If ``size`` is unknown or ``seed`` is negative.
        BundleError: If ``out`` holds something that was not generated.
    """
    _generate(out, seed, size, _chunk_users, _write_bundle)


def generate_test(out: Path, seed: int = 0, size: str = "demo", *, _chunk_users: int = CHUNK_USERS) -> None:
    """Write the hidden-test bundle that continues the site of ``generate`` with the same seed and size.

    It holds the week after the validation week, without its clicks, of most of the same readers and some new ones; the
    articles of the former bundle and those published since; article vectors; and the histories of the three weeks
    before. Rows for beyond-accuracy measures stand at the end. ``test/truth.parquet`` tells what was clicked in the
    other rows, in the order of the file: it is there to judge a submission by and is no part of EBNeRD's bundle.

    Args:
        out: Folder to write. It may exist if it is empty or holds a generated bundle, which is then replaced.
        seed: Seed of every draw, 0 or more.
        size: As for ``generate``; ``large`` has the counts of EBNeRD's test set.

    Raises:
        ConfigError: If ``size`` is unknown or ``seed`` is negative.
        BundleError: If ``out`` holds something that was not generated.
    """
    _generate(out, seed, size, _chunk_users, _write_test_bundle)


def _generate(
    out: Path, seed: int, size: str, chunk_users: int, write: Callable[[Path, int, Size, int], dict[str, object]]
) -> None:
    """Let ``write`` fill a folder beside ``out``, mark it as generated and give it its name."""
    if size not in SIZES:
        raise ConfigError(f"size: there is no sample size {size!r}. Use one of {', '.join(SIZES)}.")
    if seed < 0:
        raise ConfigError(f"seed: {seed} is negative. Use 0 or more.")
    out = Path(out)
    _check_replaceable(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    holder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        bundle = holder / "bundle"
        bundle.mkdir()
        told = write(bundle, seed, SIZES[size], chunk_users)
        mark = {"generator_version": GENERATOR_VERSION, "seed": seed, "size": size} | told
        (bundle / MARK).write_text(json.dumps(mark) + "\n", encoding="utf-8")
        if out.exists():
            out.rename(holder / "replaced")
        bundle.rename(out)
    finally:
        shutil.rmtree(holder)


def _check_replaceable(out: Path) -> None:
    if out.is_dir():
        if (out / MARK).is_file() or not any(out.iterdir()):
            return
        raise BundleError(
            f"{out}: holds files but no {MARK}, so it may be real data and is left alone. "
            "Name another folder, or empty this one."
        )
    if out.exists():
        raise BundleError(f"{out}: is a file, and a bundle is a folder. Name another folder.")


def _write_bundle(bundle: Path, seed: int, size: Size, chunk_users: int) -> dict[str, object]:
    catalogue = sample_articles(seed, size.articles, size.daily_articles)
    audience = draw_audience(seed, size.users, size.distinct_users, size.impressions)
    pools = build_pools(np.random.default_rng([seed, 6]), catalogue)
    pq.write_table(_first_articles(seed, catalogue, pools), bundle / "articles.parquet")
    pq.write_table(vector_table(seed, catalogue), bundle / "contrastive_vector.parquet")
    write_weeks(bundle, seed, catalogue, audience, pools, chunk_users)
    return {}


def _write_test_bundle(bundle: Path, seed: int, size: Size, chunk_users: int) -> dict[str, object]:
    former = sample_articles(seed, size.articles, size.daily_articles)
    new = sample_later_articles(seed, former, size.daily_articles)
    catalogue = joined(former, new)
    audience, latest = continue_audience(
        seed,
        draw_audience(seed, size.users, size.distinct_users, size.impressions),
        size.test_users,
        size.test_impressions - size.beyond_accuracy,
    )
    weeks_before = build_pools(np.random.default_rng([seed, 6]), former)
    week = build_pools(np.random.default_rng([seed, 32]), catalogue, END, TEST_END)
    shown, clicked = expected_totals(week, catalogue.size, traffic())
    later = article_table(np.random.default_rng([seed, 34]), new, shown[former.size :], clicked[former.size :], 0.0)
    articles = pa.concat_tables([_first_articles(seed, former, weeks_before), later])
    pq.write_table(articles, bundle / "articles.parquet")
    pq.write_table(vector_table(seed, catalogue), bundle / "contrastive_vector.parquet")
    pools = joined_pools(weeks_before, week)
    write_test(bundle, seed, catalogue, audience, latest, pools, size.beyond_accuracy, chunk_users)
    return {"split": TEST}


def _first_articles(seed: int, catalogue: Articles, pools: Pools) -> pa.Table:
    shown, clicked = expected_totals(pools, catalogue.size, traffic())
    return article_table(np.random.default_rng([seed, 4]), catalogue, shown, clicked)


__all__ = ["SIZES", "generate", "generate_test"]
