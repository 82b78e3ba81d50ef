"""Bundles of every kind that people have: all notebooks run to the end and say what is missing, or one clear error."""

import json
import re
from pathlib import Path

import kinds
import pytest
from runs import ROOT, copy_of, python

REFUSED = {
    "never_clicked_later": ("01_preprocess", "BundleError"),
    "times_of_days": ("01_preprocess", "BundleError"),
    "short_training": ("02_train_mf.ids", "ConfigError: warmup_hours"),
}
"""The kinds from which nothing can be learned: the first stage that says so, and how."""
SAID = {
    "no_sentiment": ("01_preprocess", "articles of known sentiment"),
    "one_readers_export": ("01_preprocess", "impressions of 1 users"),
    "half_have_read_everything": ("04_recommend", "have read all that is live"),
}
"""What a page says where something cannot be computed."""
TELLING = ("ids_of_articles_only", "one_readers_export", "half_have_read_everything")


def assert_right(smoke_bundle: Path, project: Path, names: list[str]) -> None:
    """Run the notebooks on kinds of bundles and see that each ends as it should."""
    copy_of(ROOT, project)
    for name in names:
        tables = kinds.read(smoke_bundle)
        kinds.KINDS[name](tables)
        kinds.write(tables, project / "data" / name, smoke_bundle)
    done = python(project, str(Path(__file__).with_name("warm.py")), *names)
    outcomes = [json.loads(line) for line in (project / "kinds.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [each["bundle"] for each in outcomes] == names, done.stderr[-2_000:]
    wrong = [f"{each['bundle']}: {fault}" for each in outcomes for fault in faults(**each)]
    assert not wrong, "\n".join(wrong)


def faults(bundle: str, failed: dict[str, str], pages: dict[str, str]) -> list[str]:
    """What is wrong with the outcome of a kind."""
    if bundle in REFUSED:
        stage, text = REFUSED[bundle]
        return [] if failed.get(stage, "").startswith(text) else [f"{stage} was not refused: {failed}"]
    found = [f"{stage}: {text[:300]}" for stage, text in failed.items()]
    for stage, page in pages.items():
        text = re.sub(r"<(style|svg)\b.*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL)
        found += [f"{stage} shows {one}" for one in set(re.findall(r"\b(?:nan|NaN|NaT|inf)\b", text))]
    stage, said = SAID.get(bundle, ("", ""))
    return found + ([f"{stage} does not say '{said}'"] if said and said not in pages.get(stage, "") else [])


def test_three_telling_kinds(smoke_bundle, tmp_path):
    assert_right(smoke_bundle, tmp_path / "project", list(TELLING))


@pytest.mark.slow
def test_all_other_kinds(smoke_bundle, tmp_path):
    assert_right(smoke_bundle, tmp_path / "project", [name for name in kinds.KINDS if name not in TELLING])
