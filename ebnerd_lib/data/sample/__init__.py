"""A made-up news site that behaves like EBNeRD's: the sample bundles that everything runs on without the data.

Articles come out through the day, draw attention that decays within hours, and compete in slates of fresh,
popular and evergreen ones; readers have tastes, habits and a memory. The rules and constants were chosen so that
published aggregates of EBNeRD hold and so that scorers rank on the sample as they do on the data. Nothing here is
a row of EBNeRD.
"""

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from ebnerd_lib.data.sample.audience import draw_audience
from ebnerd_lib.data.sample.catalogue import article_table, draw_catalogue, vector_table
from ebnerd_lib.data.sample.pools import build_pools, expected_totals
from ebnerd_lib.data.sample.weeks import traffic, write_weeks
from ebnerd_lib.errors import BundleError, ConfigError

GENERATOR_VERSION = 1
MARK = "generated.json"


@dataclass(frozen=True)
class Size:
    """Counts of a bundle: pairs are of the train and the validation week."""

    impressions: tuple[int, int]
    users: tuple[int, int]
    distinct_users: int
    articles: int
    daily_articles: float


SIZES: dict[str, Size] = {
    "smoke": Size((2_000, 2_050), (126, 124), 150, 900, 19.0),
    "demo": Size((24_724, 25_356), (1_590, 1_562), 1_935, 11_777, 119.0),
    "small": Size((232_887, 244_647), (15_143, 15_342), 18_827, 20_738, 119.0),
    "large": Size((12_063_890, 12_566_385), (788_090, 791_582), 975_000, 125_541, 119.0),
}
CHUNK_USERS = 16_384


def generate(out: Path, seed: int = 0, size: str = "demo", *, _chunk_users: int = CHUNK_USERS) -> None:
    """Write a made-up bundle: articles, both splits, article vectors, and ``generated.json`` last of all.

    The bundle is written beside ``out`` and takes its name when it is whole. The same seed and size give the same
    bytes.

    Args:
        out: Folder to write. It may exist if it is empty or holds a generated bundle, which is then replaced.
        seed: Seed of every draw, 0 or more.
        size: ``smoke``, ``demo``, ``small`` or ``large``; the last three have the counts of EBNeRD's bundles.

    Raises:
        ConfigError: If ``size`` is unknown or ``seed`` is negative.
        BundleError: If ``out`` holds something that was not generated.
    """
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
        _write_bundle(bundle, seed, size, _chunk_users)
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


def _write_bundle(bundle: Path, seed: int, size: str, chunk_users: int) -> None:
    counts = SIZES[size]
    bundle.mkdir()
    catalogue = draw_catalogue(seed, counts.articles, counts.daily_articles)
    audience = draw_audience(seed, counts.users, counts.distinct_users, counts.impressions)
    pools = build_pools(seed, catalogue)
    shown, clicked = expected_totals(pools, len(catalogue), traffic())
    pq.write_table(article_table(seed, catalogue, shown, clicked), bundle / "articles.parquet")
    pq.write_table(vector_table(seed, catalogue), bundle / "contrastive_vector.parquet")
    write_weeks(bundle, seed, catalogue, audience, pools, chunk_users)
    mark = {"generator_version": GENERATOR_VERSION, "seed": seed, "size": size}
    (bundle / MARK).write_text(json.dumps(mark) + "\n", encoding="utf-8")


__all__ = ["SIZES", "generate"]
