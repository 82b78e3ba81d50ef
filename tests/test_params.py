"""Parameters: defaults in the notebook's cell, legal values in its class, what differs in YAML files and variables."""

import ast
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ebnerd_lib.__main__ import main
from ebnerd_lib.configs import CONFIGS, Loss, Tier, flat
from ebnerd_lib.errors import ConfigError
from ebnerd_lib.features.registry import TIERS
from ebnerd_lib.models.base import LOSSES
from ebnerd_lib.pipeline import paths
from ebnerd_lib.pipeline.params import (
    StageConfig,
    base_config,
    code_cells,
    from_values,
    load_config,
    load_profile,
    read_assignments,
    read_defaults,
    read_yaml,
    with_values,
)
from ebnerd_lib.pipeline.paths import notebook_path, profile_stages, profiles

REPO = Path(__file__).resolve().parents[1]
STAGE = "03_train_mlp"
FILE = f"params/test/{STAGE}.yaml"
DEFAULTS = {**read_defaults(notebook_path(STAGE)), "profile": "test"}


class Project:
    """A project with the notebooks and one parameter file, in a folder of its own."""

    def __init__(self, root: Path) -> None:
        shutil.copytree(REPO / "notebooks", root / "notebooks")
        self.file = root / FILE
        self.file.parent.mkdir(parents=True)

    def load(self, text: str | bytes) -> StageConfig:
        self.file.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_config("test", STAGE)

    def refusal(self, text: str | bytes) -> str:
        """Return the message with which a parameter file is refused; it names the file in one line."""
        with pytest.raises(ConfigError) as caught:
            self.load(text)
        assert FILE in str(caught.value) and "\n" not in str(caught.value)
        return str(caught.value)

    def cells(self, change: Callable[[list[dict]], object]) -> None:
        """Change the cells of the notebook that are tagged as parameters, one at first."""
        content = json.loads(notebook_path(STAGE).read_text())
        tagged = [cell for cell in content["cells"] if "parameters" in cell["metadata"].get("tags", [])]
        change(tagged)
        others = [cell for cell in content["cells"] if "parameters" not in cell["metadata"].get("tags", [])]
        notebook_path(STAGE).write_text(json.dumps({**content, "cells": tagged + others}))


@pytest.fixture
def project(tmp_path, monkeypatch) -> Project:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    return Project(tmp_path)


def assert_of_declared_types(parameters: dict) -> None:
    def kinds(value: object) -> set[type]:
        return {type(item) for item in value} if isinstance(value, list) else {type(value)}

    assert all(kinds(parameters[key]) <= kinds(default) for key, default in DEFAULTS.items())
    assert math.isfinite(parameters["learning_rate"])


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("import os", "import os"),
        ("more: int = 1", "more"),
        ("epochs: int = 2 * 6", "epochs"),
        ("hidden: list[int] = [1, 2.5]", r"hidden\[1\]"),
        ("epochs: int = (", "not Python"),
    ],
)
def test_a_line_that_declares_nothing_or_a_wrong_default_is_named(project, line, named):
    project.cells(lambda tagged: tagged[0]["source"].append(f"\n{line}\n"))
    project.file.write_text("")
    with pytest.raises(ConfigError, match=named) as caught:
        load_config("test", STAGE)
    assert f"notebooks/{STAGE}.ipynb" in str(caught.value)


def test_a_notebook_needs_one_cell_of_parameters_and_a_class(project):
    path = notebook_path(STAGE)
    shutil.copy(path, notebook_path("03_train_mine"))
    with pytest.raises(ConfigError, match=r"03_train_mine: ebnerd_lib/configs\.py.*'03_train_"):
        read_defaults(notebook_path("03_train_mine"))
    for spoil in (
        lambda: project.cells(lambda tagged: tagged.extend(tagged)), lambda: project.cells(list.clear),
        lambda: path.write_text("{}"), path.unlink,
    ):  # fmt: skip
        spoil()
        with pytest.raises(ConfigError, match=rf"notebooks/{STAGE}\.ipynb"):
            read_defaults(path)


def test_an_empty_file_gives_the_defaults_and_given_values_take_their_place(project):
    for text in ("", "# nothing but a comment\n", "---\n"):
        config = project.load(text)
        assert config.given == {} and flat(config.parameters) | flat(DEFAULTS) == flat(config.parameters)
    config = project.load('epochs: 3  # few\nreads: ["01_a"]\nlearning_rate: 1\ndropout: 2e-1\n')
    assert config.given == {"epochs": 3, "reads": ["01_a"], "learning_rate": 1.0, "dropout": 0.2}
    assert list(config.parameters) == list(DEFAULTS), "in the notebook's order"
    assert (config.stage, config.profile, config.parameters["reads"]) == (STAGE, "test", ["01_a"])
    assert_of_declared_types(config.parameters)
    other = with_values(config, {"epochs": 4}, "here")
    assert (other.given, other.parameters) == (config.given | {"epochs": 4}, config.parameters | {"epochs": 4})


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("epoch: 3", "'epochs'"),  # the nearest key
        ("zzz: 3", "reads, tier, embedding_size, hidden"),
        ('profile: "other"', "profile"),
        ("epochs: 3\ntier: ids\nepochs: 4", "'epochs'"),
        ("learning_rate: .inf", "learning_rate"),
        ("epochs: 010", "'010'"),  # 8 in YAML 1.1
        ("epochs: &a 3\nhidden: [*a]", "alias *a"),
        ("tier: 2023-05-30", "'2023-05-30'"),
        ("hidden: [64, big]", "hidden[1]"),
    ],
)
def test_a_wrong_key_or_value_is_named(project, text, named):
    assert named in project.refusal(text)


def test_a_file_that_is_malformed_missing_or_would_grow_is_named(project):
    for text in ("epochs: [3", "epochs: 3\n\ttier: 4", b"tier: \xff", "- epochs", "tier: !!python/name:os.system",
        "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9) if n else 'x'}]" for n in range(9)),
        "hidden: &a [1, *a]", "<<: {epochs: 3}", "hidden: " + "[" * 5_000, "? " * 9_000,
        "epochs: " + "9" * 5_000, "\ufeff\x00", "epochs: \x1b[31m1",
        "[]", "0", "false", "''"):  # fmt: skip
        assert len(message := project.refusal(text)) < 900 and message.isascii() and message.isprintable()
    project.file.unlink()
    with pytest.raises(ConfigError, match=re.escape(FILE)):
        load_config("test", STAGE)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet="ab: -\n[]{}#&*!|>'\"%@?,.0189e~\t", max_size=30) | st.binary(max_size=20))
def test_any_text_is_loaded_or_refused(project, text):
    try:
        config = project.load(text)
    except ConfigError as error:
        assert FILE in str(error)
    else:
        assert_of_declared_types(config.parameters)


def test_variables_of_a_notebook_are_checked_as_a_file_is(project):
    variables = {**DEFAULTS, "profile": "mine", "learning_rate": 1, "hidden": [8]}
    config = from_values(STAGE, variables)
    assert config.given.items() >= {"profile": "mine", "learning_rate": 1.0}.items() and config.given["hidden"] == [8]
    assert config.profile == "mine"
    assert_of_declared_types(config.parameters)
    for key, value in (("epochs", "3"), ("epochs", 10**5000), ("hidden", (8,)), ("learning_rate", math.nan)):
        with pytest.raises(ConfigError, match=rf"{STAGE}.*{key}"):
            from_values(STAGE, variables | {key: value})
    for wrong, named in ((variables | {"pi": 3.14}, "pi"), ({"profile": "mine"}, "start")):
        with pytest.raises(ConfigError, match=rf"{STAGE}.*{named}"):
            from_values(STAGE, wrong)


def test_stages_of_a_profile(project, tmp_path):
    project.load("")
    notebook_path("02_next").write_text("{}")
    project.file.with_name("02_next.yaml").write_text("")
    for hidden in ("._03_stage.yaml", ".02_next.yml"):
        project.file.with_name(hidden).write_bytes(b"\0")
    (tmp_path / "params" / ".ipynb_checkpoints").mkdir()
    assert profile_stages("test") == ["02_next", STAGE] and ".ipynb_checkpoints" not in profiles()
    project.file.with_name("03_more.yml").write_text("")
    with pytest.raises(ConfigError, match=r"03_more\.yml"):
        profile_stages("test")
    project.file.with_name("03_more.yml").unlink()
    notebook_path("02_next").unlink()
    (tmp_path / "params" / "empty").mkdir()
    for profile, named in (("test", "02_next"), ("empty", "params/empty"), ("lost", "params/lost")):
        with pytest.raises(ConfigError, match=named):
            profile_stages(profile)
    project.file.with_name("02_next.yaml").unlink()
    for variant in ("lab1", "failed", "online", "wide_online", "Wide", "2", "a-b", ""):
        file = project.file.with_name(f"{STAGE}.{variant}.yaml")
        file.write_text("")
        with pytest.raises(ConfigError, match=re.escape(file.name)):
            profile_stages("test")
        file.unlink()


def test_a_variant_starts_from_the_file_of_its_notebook_without_its_online_updates(project):
    wide = project.file.with_name(f"{STAGE}.wide.yaml")
    wide.write_text("hidden: [256]\ntrainer: {num_nodes: 4}\n")
    assert load_config("test", wide.stem).parameters["epochs"] == DEFAULTS["epochs"], "without a file of the notebook"
    project.file.write_text("epochs: 3\nupdate_minutes: 60\nonline: {replay: 1}\ntrainer: {devices: 3}\n")
    config = load_config("test", wide.stem)
    assert set(config.given) == {"epochs", "hidden", "trainer"}
    assert config.given["trainer"].items() >= {"devices": 3, "num_nodes": 4}.items()
    assert config.changes == {"hidden": [256], "trainer.num_nodes": 4}
    assert (config.parameters["update_minutes"], config.parameters["online"]["replay"]) == (0, 3.0)


def test_a_stage_reads_the_stages_of_the_models_that_it_names_and_a_wrong_name_starts_nothing(project, capsys):
    files = {
        "01_preprocess": "", "01_preprocess.half": "", "02_train_mf.ids": "", "03_train_news.nrms": "",
        "02_train_mf.half": 'reads: ["01_preprocess.half"]', "05_compare": "importance: []",
        "05_compare.one": 'models: ["mf_ids"]',
    }  # fmt: skip
    for stage, text in files.items():
        project.file.with_name(f"{stage}.yaml").write_text(text)
    reads = {stage: config.reads for stage, config in load_profile("test").items()}
    assert reads["05_compare"] == ("01_preprocess", "02_train_mf.ids", "03_train_news.nrms"), "of the 01 that it reads"
    assert reads["05_compare.one"] == ("01_preprocess", "02_train_mf.ids")
    for stage, text, wrong in (
        ("05_compare.one", 'models: ["mf_half"]', "mf_half"), ("05_compare.one", 'reads: ["05_compare.one"]', "one"),
        ("05_compare.one", 'reads: ["01_preproces"]', "'01_preprocess'"),
        ("02_train_mf.ids", 'reads: ["01_preprocess", "05_compare"]', "reads"),
    ):  # fmt: skip
        file = project.file.with_name(f"{stage}.yaml")
        kept = file.read_text()
        file.write_text(text)
        assert main(["run", "--profile", "test"]) == 1
        told = capsys.readouterr()
        assert re.search(rf"params/test/.*{wrong}", told.err) and told.err.count("\n") == 1 and not told.out
        file.write_text(kept)
    assert not (paths.ROOT / "outputs").exists()


# The repository's own files.

FILES = sorted((REPO / "params").glob("*/[0-9]*.yaml"))
NOTEBOOKS = sorted((REPO / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_parameter_file_holds_what_differs_with_a_comment_on_each_key(file):
    config = load_profile(file.parent.name)[file.stem]
    assert all(stage < file.stem for stage in config.reads), "reads earlier stages"
    written = read_yaml(file)
    assert len(config.changes) == sum(len(value) if isinstance(value, dict) else 1 for value in written.values())
    lines = [line for line in file.read_text().splitlines() if line.strip() and not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[a-z_0-9]+:|( {2})?[a-z_0-9]+: .*\S  # \S.*", line)] == []


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_the_cell_of_a_notebook_has_legal_defaults_one_a_line(file):
    defaults, fields = read_defaults(file), CONFIGS[file.stem].model_fields
    assert all(field.is_required() for field in fields.values())
    assert [name for name, field in fields.items() if not (field.description or "").isascii()] == []
    checked = flat(CONFIGS[file.stem].model_validate(defaults).model_dump())
    assert checked | flat(defaults) == checked
    (source,) = [cell["source"] for cell in code_cells(file) if "parameters" in cell["metadata"].get("tags", [])]
    assert [line for line in source.splitlines() if not re.fullmatch(r"\w+: [\w\[\]]+ = .+  # \S.*", line)] == []
    assert len(ast.parse(source).body) == len(source.splitlines()) == len(defaults), "one parameter a line"


def test_tiers_and_losses_are_those_that_the_package_knows():
    assert get_args(Tier) == TIERS and get_args(Loss) == tuple(LOSSES)


@pytest.mark.parametrize("stage", profile_stages("smoke"))
def test_values_of_other_types_and_beyond_all_limits_are_refused_with_their_key(stage):
    paths = ["..", "/etc", "~/x", "data//x", "a/../b", "../" * 3_000]
    wrong = [None, True, -1, 10**12, 10**400, 1e300, "", *paths, [[]], {"a": 1}]
    for name, default in read_defaults(notebook_path(stage)).items():
        for value in wrong:
            item = [value] if isinstance(default, list) else value
            if isinstance(default, dict) and isinstance(value, dict):
                item = {"patience": "1", "replay": -1, "devices": 0}
            if name not in ("profile", "time", "mlflow") or value != "":  # no time is one, nor is no server
                with pytest.raises(ConfigError, match=name) as caught:
                    with_values(base_config("smoke", stage), {name: item}, "here")
                assert len(str(caught.value)) < 900 and str(caught.value).isascii() and str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("assignment", "named"),
    [
        ("epoch=3", "'epochs'"),
        ("epochs", "key=value"),
        ("hidden=[", "key=value"),
        ("update_minutes=7", "0, 1, 15, 60, 1440"),
        ("dropout=1.0", "dropout"),
        ("hidden=[0]", r"hidden\[0\]"),
        ("tier=click", "'clicks'"),
        ("reads=[01_a, 01_a]", "reads"),
        ("trainer.device=2", "'devices'"),
        ("trainer=2", "trainer"),
        ("training.loss=hinge", "'listwise', 'bce'"),
    ],
)
def test_an_assignment_that_is_not_legal_is_refused_with_what_is(assignment, named):
    def set_anew(text: str) -> StageConfig:
        return with_values(load_config("smoke", "03_train_mlp"), read_assignments(text, "--set"), "--set")

    legal = set_anew("update_minutes=15; dropout=0.1;dropout=0; hidden=[4, 2]").parameters
    assert (legal["dropout"], legal["hidden"], legal["seed"]) == (0.0, [4, 2], 0)
    with pytest.raises(ConfigError, match=rf"--set: .*{named}"):
        set_anew(assignment)
