"""A made-up news site that behaves like EBNeRD's: the sample bundles that everything runs on without the data.

Articles come out through the day, attract readers for some hours, and compete in slates of fresh, popular and
evergreen ones; readers have profiles, habits and a memory. The rules and constants were chosen so that published
aggregates of EBNeRD hold and so that scorers rank on the sample as they do on the data. Nothing here is a row of
EBNeRD.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ebnerd_lib.data.layout import STAMP, TEST, VECTORS
from ebnerd_lib.errors import BundleError
from ebnerd_lib.sample.articles import article_table, joined, sample_articles, sample_later_articles, vector_table
from ebnerd_lib.sample.pools import build_pools, expected_totals
from ebnerd_lib.sample.readers import continue_readers, sample_readers
from ebnerd_lib.sample.weeks import Simulation, write_weeks

GENERATOR_VERSION = 2


@dataclass(frozen=True)
class Size:
    """Counts of a bundle: pairs are of the train and the validation week."""

    impressions: tuple[int, int]  # rows of the behaviours
    users: tuple[int, int]
    distinct_users: int  # of either week
    articles: int  # published by the end of the validation week
    daily_articles: float  # published in a day of the weeks that are covered
    test_impressions: int  # rows of the hidden test week, those for beyond-accuracy measures included
    beyond_accuracy: int  # of these, the rows for beyond-accuracy measures
    test_users: int  # users of the hidden test week


SIZES: dict[str, Size] = {
    "smoke": Size((2_000, 2_050), (126, 124), 150, 900, 19.0, 2_060, 60, 125),
    "demo": Size((24_724, 25_356), (1_590, 1_562), 1_935, 11_777, 119.0, 25_400, 400, 1_600),
    "small": Size((232_887, 244_647), (15_143, 15_342), 18_827, 20_738, 119.0, 244_000, 4_000, 15_500),
    "tenth": Size((1_206_389, 1_256_638), (78_809, 79_158), 97_500, 45_000, 119.0, 1_353_671, 20_000, 80_768),
    "large": Size((12_063_890, 12_566_385), (788_090, 791_582), 975_000, 125_541, 119.0, 13_536_710, 200_000, 807_677),
}


def generate(out: Path, seed: int = 0, size: str = "demo", test: bool = False) -> None:
    """Write a made-up bundle: articles, both splits, article vectors, and ``generated.json`` last of all.

    It is written beside ``out`` and takes its name when it is whole; ``out`` may exist if it is empty or holds a
    generated bundle. The same seed and size give the same bytes. Of the ``SIZES``, ``demo``, ``small`` and ``large``
    have the counts of EBNeRD's bundles, ``tenth`` a tenth of the last one's rows.

    With ``test`` it is the hidden-test bundle that continues the site. It holds the week after the validation week,
    without its clicks, of most of the same readers and some new ones; the articles of the former bundle and those
    published since; article vectors; and the histories of the three weeks before. Rows for beyond-accuracy measures
    stand at the end. ``test/truth.parquet`` tells what was clicked in the other rows, in the order of the file: it is
    there to evaluate a submission and is no part of EBNeRD's bundle.

    Raises:
        BundleError: If ``out`` holds something that was not generated.
    """
    if out.is_file() or (any(out.glob("*")) and not (out / STAMP).is_file()):
        raise BundleError(
            f"{out}: is a file, or holds files but no {STAMP}, so it may be real data and is left alone. "
            "Name another folder, or empty this one."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as holder:
        bundle = Path(holder) / "bundle"
        bundle.mkdir()
        _write(bundle, seed, SIZES[size], test)
        stamp = {"generator_version": GENERATOR_VERSION, "seed": seed, "size": size} | ({"split": TEST} if test else {})
        (bundle / STAMP).write_text(json.dumps(stamp) + "\n", encoding="utf-8")
        if out.exists():
            out.rename(Path(holder) / "replaced")
        bundle.rename(out)


def _write(bundle: Path, seed: int, size: Size, test: bool) -> None:
    """Write the files of a bundle: of the hidden test week, or of the two weeks before it."""
    articles = sample_articles(seed, size.articles, size.daily_articles)
    readers = sample_readers(seed, size.users, size.distinct_users, size.impressions)
    pools = build_pools(np.random.default_rng([seed, 6]), articles)
    totals = expected_totals(pools, articles.published.size)
    tables = [article_table(np.random.default_rng([seed, 4]), articles, *totals)]
    if test:
        later = sample_later_articles(seed, articles, size.daily_articles)
        articles = joined(articles, later)
        readers = continue_readers(seed, readers, size.test_users, size.test_impressions - size.beyond_accuracy)
        week = build_pools(np.random.default_rng([seed, 32]), articles, test=True)
        pools = joined(pools, week)
        shown, clicked = (total[-later.published.size :] for total in expected_totals(week, articles.published.size))
        tables.append(article_table(np.random.default_rng([seed, 34]), later, shown, clicked, uncounted=0.0))
    pq.write_table(pa.concat_tables(tables), bundle / "articles.parquet")
    del tables  # nothing else is as large
    pq.write_table(vector_table(seed, articles), bundle / VECTORS)
    simulation = Simulation(seed, articles, readers, pools)
    write_weeks(bundle, simulation, (2,) if test else (0, 1), size.beyond_accuracy if test else 0)
