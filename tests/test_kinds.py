"""Bundles of every kind that people have: all notebooks run to the end and say what is missing, or one clear error."""

import json
import re
import shutil

import IPython.display
import kinds
import pytest

from ebnerd_lib.pipeline import paths, stage, stale
from ebnerd_lib.pipeline.params import code_cells, load_profile
from ebnerd_lib.pipeline.paths import StagePaths, notebook_path, release

REFUSED = {
    "never_clicked_later": ("01_preprocess", "BundleError"),
    "times_of_days": ("01_preprocess", "BundleError"),
    "short_training": ("02_train_mf.features", "ConfigError: warmup_hours"),
}
"""The kinds from which nothing can be learned: the first stage that says so, and how."""
SAID = {
    "no_sentiment": ("01_preprocess", "articles of known sentiment"),
    "one_readers_export": ("01_preprocess", "impressions of 1 users"),
    "half_have_read_everything": ("04_recommend", "have read all that is live"),
}
"""What a page says where something cannot be computed."""
TELLING = ("ids_of_articles_only", "one_readers_export", "half_have_read_everything")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Execute the code cells of a stage in this process; returns what they display and print."""
    for name in ("notebooks", "params"):
        shutil.copytree(paths.ROOT / name, tmp_path / name)
    for module in (paths, stage, stale):
        monkeypatch.setattr(module, "ROOT", tmp_path)

    def as_text(thing):
        return thing._repr_html_() if hasattr(thing, "_repr_html_") else str(getattr(thing, "data", thing))

    def execute(config) -> str:
        shown = []
        told = {"stage": config.stage, "fingerprint": "0", "reads": config.reads}
        monkeypatch.setenv(stage.BATCH_VARIABLE, json.dumps(told))
        monkeypatch.setattr(IPython.display, "display", lambda *things: shown.extend(map(as_text, things)))
        space = {"print": lambda *words: shown.append(" ".join(map(str, words)))}
        try:
            for cell in code_cells(notebook_path(config.stage)):
                exec(compile(cell["source"], config.stage, "exec"), space)  # noqa: S102 cells of our own notebooks
                if "parameters" in cell["metadata"].get("tags", []):
                    space |= {**config.given, "profile": config.profile}
        finally:
            release(StagePaths(config.profile, config.stage).lock)
        return "\n".join(shown)

    return execute


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in TELLING else pytest.mark.slow) for name in kinds.KINDS]
)
def test_every_stage_of_a_kind_runs_to_its_end_or_refuses_it(name, smoke_bundle, tmp_path, run):
    tables = kinds.read(smoke_bundle)
    kinds.KINDS[name](tables)
    kinds.write(tables, tmp_path / "data" / "smoke", smoke_bundle)
    refusing, error = REFUSED.get(name, ("", ""))
    for own, config in load_profile("smoke").items():
        if own == refusing:
            with pytest.raises(Exception) as caught:
                run(config)
            assert f"{caught.typename}: {caught.value}".startswith(error)
            return
        page = run(config)
        text = re.sub(r"<(style|svg)\b.*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL)
        assert set(re.findall(r"\b(?:nan|NaN|NaT|inf)\b", text)) == set(), own
        if own == SAID.get(name, ("",))[0]:
            assert SAID[name][1] in page
