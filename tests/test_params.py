"""Parameters: defaults in the notebook's cell, legal values in its class, what differs in YAML files and variables."""

import ast
import json
import math
import re
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
    read_schema,
    read_yaml,
    with_values,
)
from ebnerd_lib.pipeline.paths import notebook_path, profile_stages, profiles

REPO = Path(__file__).resolve().parents[1]
PARAMETERS = """\
profile: str = "sample"  # folder of params/
reads: list[str] = []  # stages
epochs: int = 12  # at the most
learning_rate: float = 1.0e-3  # of AdamW
hidden: list[int] = [128, 64]  # widths
shares: list[float] = [0.5]  # of things
verbose: bool = False  # talk
split: str = "official"  # which
"""
DEFAULTS = {
    "profile": "test", "reads": [], "epochs": 12, "learning_rate": 0.001, "hidden": [128, 64], "shares": [0.5],
    "verbose": False, "split": "official",
}  # fmt: skip


def notebook(*cells: tuple[list[str], str]) -> str:
    written = [{"cell_type": "code", "metadata": {"tags": tags}, "source": [source]} for tags, source in cells]
    return json.dumps({"cells": written, "nbformat": 4, "nbformat_minor": 5, "metadata": {}})


class Project:
    """A project of one notebook without a class, and one parameter file, in a folder of its own."""

    def __init__(self, root: Path) -> None:
        (root / "notebooks").mkdir()
        (root / "params" / "test").mkdir(parents=True)
        self.file = root / "params" / "test" / "01_stage.yaml"
        self.notebook(PARAMETERS)

    def notebook(self, source: str) -> Path:
        path = notebook_path("01_stage")
        path.write_text(notebook(([], "import math"), (["parameters"], source)), encoding="utf-8")
        return path

    def load(self, text: str | bytes) -> StageConfig:
        self.file.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_config("test", "01_stage")

    def refusal(self, text: str | bytes) -> str:
        """Return the message with which a parameter file is refused; it names the file in one line."""
        with pytest.raises(ConfigError) as caught:
            self.load(text)
        assert "params/test/01_stage.yaml" in str(caught.value) and "\n" not in str(caught.value)
        return str(caught.value)


@pytest.fixture
def project(tmp_path, monkeypatch) -> Project:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    return Project(tmp_path)


def assert_of_declared_types(parameters: dict) -> None:
    def kinds(value: object) -> set[type]:
        return {type(item) for item in value} if isinstance(value, list) else {type(value)}

    assert all(kinds(parameters[key]) <= (kinds(default) or {str}) for key, default in DEFAULTS.items())
    assert all(map(math.isfinite, [parameters["learning_rate"], *parameters["shares"]]))


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("import os", "import os"),
        ("epochs: Path = 1", "Path"),
        ("epochs: int = 2 * 6", "epochs"),
        ("hidden: list[int] = [1, 2.5]", r"hidden\[1\]"),
        ("epochs: int = (", "01_stage"),
    ],
)
def test_a_line_that_declares_nothing_or_a_wrong_default_is_named(project, line, named):
    project.notebook(f"seed: int = 0  # of samples\n{line}\n")
    project.file.write_text("")
    with pytest.raises(ConfigError, match=named) as caught:
        load_config("test", "01_stage")
    assert "notebooks/01_stage.ipynb" in str(caught.value)


def test_a_notebook_needs_one_cell_of_parameters(project):
    for content in ("{}", notebook(([], PARAMETERS)), notebook(*[(["parameters"], PARAMETERS)] * 2), None):
        path = notebook_path("01_stage")
        path.unlink() if content is None else path.write_text(content, encoding="utf-8")
        with pytest.raises(ConfigError, match=r"notebooks/01_stage\.ipynb"):
            read_schema(path)


def test_an_empty_file_gives_the_defaults_and_given_values_take_their_place(project):
    for text in ("", "# nothing but a comment\n", "---\n"):
        config = project.load(text)
        assert config.given == {} and config.parameters == DEFAULTS
    config = project.load('epochs: 3  # few\nreads: ["00_first"]\nlearning_rate: 1\nshares: [1, 0.5]\n')
    assert config.given == {"epochs": 3, "reads": ["00_first"], "learning_rate": 1.0, "shares": [1.0, 0.5]}
    assert list(config.parameters.items()) == list((DEFAULTS | config.given).items()), "in the notebook's order"
    assert (config.stage, config.profile, config.parameters["reads"]) == ("01_stage", "test", ["00_first"])
    assert_of_declared_types(config.parameters)
    other = with_values(config, {"epochs": 4}, "here")
    assert (other.given, other.parameters) == (config.given | {"epochs": 4}, config.parameters | {"epochs": 4})


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("epoch: 3", "'epochs'"),  # the nearest key
        ("zzz: 3", "reads, epochs, learning_rate, hidden, shares, verbose, split"),
        ('profile: "other"', "profile"),
        ("epochs: 3\nsplit: x\nepochs: 4", "'epochs'"),
        ("no: 2", "False"),
        ("learning_rate: 1e-3", "1.0e-3"),  # a text in YAML 1.1
        ("shares: [0.5, .inf]", "shares[1]"),
        ("epochs: 010", "010"),  # 8 in YAML 1.1
        ("epochs: &a 3\nhidden: [*a]", "alias *a"),
        ("split: 2023-05-30", "split"),
        ("hidden: [64, big]", "hidden[1]"),
    ],
)
def test_a_wrong_key_or_value_is_named(project, text, named):
    assert named in project.refusal(text)


def test_a_file_that_is_malformed_missing_or_would_grow_is_named(project):
    for text in ("epochs: [3", "epochs: 3\n\tsplit: 4", b"split: \xff", "- epochs", "split: !!python/name:os.system",
        "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9) if n else 'x'}]" for n in range(9)),
        "hidden: &a [1, *a]", "<<: &a {epochs: 3}\nseed: 1\n<<: *a", "hidden: " + "[" * 5_000, "? " * 9_000,
        "epochs: " + "9" * 5_000, "\ufeff\x00", "epochs: \x1b[31m1"):  # fmt: skip
        assert len(message := project.refusal(text)) < 900 and message.isascii() and message.isprintable()
    project.file.unlink()
    with pytest.raises(ConfigError, match=r"params/test/01_stage\.yaml"):
        load_config("test", "01_stage")


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet="ab: -\n[]{}#&*!|>'\"%@?,.0189e~\t", max_size=30) | st.binary(max_size=20))
def test_any_text_is_loaded_or_refused(project, text):
    try:
        config = project.load(text)
    except ConfigError as error:
        assert "params/test/01_stage.yaml" in str(error)
    else:
        assert_of_declared_types(config.parameters)


def test_variables_of_a_notebook_are_checked_as_a_file_is(project):
    variables = {**DEFAULTS, "profile": "mine", "learning_rate": 1, "hidden": [8], "shares": [1]}
    config = from_values("01_stage", variables)
    assert config.given == {"profile": "mine", "learning_rate": 1.0, "hidden": [8], "shares": [1.0]}
    assert config.profile == "mine"
    assert_of_declared_types(config.parameters)
    for key, value in (("epochs", "3"), ("split", 10**5000), ("hidden", (8,)), ("learning_rate", math.nan)):
        with pytest.raises(ConfigError, match=rf"01_stage.*{key}"):
            from_values("01_stage", variables | {key: value})
    for wrong, named in ((variables | {"pi": 3.14}, "pi"), ({"profile": "mine"}, "start")):
        with pytest.raises(ConfigError, match=rf"01_stage.*{named}"):
            from_values("01_stage", wrong)


def test_stages_of_a_profile(project, tmp_path):
    project.load("")
    notebook_path("02_next").write_text("{}")
    project.file.with_name("02_next.yaml").write_text("")
    for hidden in ("._01_stage.yaml", ".02_next.yml"):
        project.file.with_name(hidden).write_bytes(b"\0")
    (tmp_path / "params" / ".ipynb_checkpoints").mkdir()
    assert profile_stages("test") == ["01_stage", "02_next"] and ".ipynb_checkpoints" not in profiles()
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
        file = project.file.with_name(f"01_stage.{variant}.yaml")
        file.write_text("")
        with pytest.raises(ConfigError, match=re.escape(file.name)):
            profile_stages("test")
        file.unlink()


def test_a_variant_starts_from_the_file_of_its_notebook_without_its_online_updates(project):
    cell = (
        PARAMETERS
        + "update_minutes: int = 0  # off\nonline: dict = {}  # more\ntrainer: dict = {'a': 1, 'b': 2}  # of\n"
    )
    project.notebook(cell)
    wide = project.file.with_name("01_stage.wide.yaml")
    wide.write_text("hidden: [256]\ntrainer: {b: 4}\n")
    assert load_config("test", "01_stage.wide").parameters["epochs"] == 12, "without a file of the notebook"
    project.file.write_text("epochs: 3\nupdate_minutes: 60\nonline: {rate: 1}\ntrainer: {a: 3}\n")
    config = load_config("test", "01_stage.wide")
    assert config.given == {"epochs": 3, "hidden": [256], "trainer": {"a": 3, "b": 4}}
    assert config.changes == {"hidden": [256], "trainer.b": 4}
    assert (config.parameters["update_minutes"], config.parameters["online"]) == (0, {})


def test_a_stage_reads_the_stages_of_the_models_that_it_names_and_a_wrong_name_starts_nothing(project, capsys):
    named = PARAMETERS + "models: list[str] = []  # all\n"
    for stage, cell in (("02_train_a", PARAMETERS), ("03_train_b", PARAMETERS), ("05_all", named)):
        notebook_path(stage).write_text(notebook((["parameters"], cell)))
    files = {
        "01_stage": "", "01_stage.half": "", "02_train_a.ids": 'reads: ["01_stage"]',
        "03_train_b.nrms": 'reads: ["01_stage"]', "02_train_a.half": 'reads: ["01_stage.half"]',
        "05_all": 'reads: ["01_stage"]', "05_all.one": 'models: ["a_ids"]',
    }  # fmt: skip
    for stage, text in files.items():
        project.file.with_name(f"{stage}.yaml").write_text(text)
    reads = {stage: config.reads for stage, config in load_profile("test").items()}
    assert reads["05_all"] == ("01_stage", "02_train_a.ids", "03_train_b.nrms"), "of the 01 that it reads"
    assert reads["05_all.one"] == ("01_stage", "02_train_a.ids")
    for stage, text, wrong in (
        ("05_all.one", 'models: ["a_half"]', "a_half"), ("05_all.one", 'reads: ["05_all.one"]', "05_all.one"),
        ("05_all.one", 'reads: ["01_stag"]', "'01_stage'"), ("01_stage", 'reads: ["05_all"]', "reads"),
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
def test_a_notebook_and_its_class_declare_the_same_parameters(file):
    schema, fields = read_schema(file), CONFIGS[file.stem].model_fields
    assert set(schema) == set(fields) and all(field.is_required() for field in fields.values())
    assert [name for name, field in fields.items() if not (field.description or "").isascii()] == []
    defaults = {name: line.default for name, line in schema.items()}
    checked = flat(CONFIGS[file.stem].model_validate(defaults).model_dump())
    assert checked | flat(defaults) == checked
    (source,) = [cell["source"] for cell in code_cells(file) if "parameters" in cell["metadata"].get("tags", [])]
    assert [line for line in source.splitlines() if not re.fullmatch(r"\w+: [\w\[\]]+ = .+  # \S.*", line)] == []
    assert len(ast.parse(source).body) == len(source.splitlines()) == len(schema), "one parameter a line"


def test_tiers_and_losses_are_those_that_the_package_knows():
    assert get_args(Tier) == TIERS and get_args(Loss) == tuple(LOSSES)


@pytest.mark.parametrize("stage", profile_stages("smoke"))
def test_values_of_other_types_and_beyond_all_limits_are_refused_with_their_key(stage):
    wrong = [None, True, -1, 10**12, 10**400, 1e300, "", "..", "a/../b", "../" * 3_000, [[]], {"a": 1}]
    for name, declared in read_schema(notebook_path(stage)).items():
        for value in wrong:
            item = [value] if declared.type.startswith("list") else value
            if declared.type == "dict" and isinstance(value, dict):
                item = {"patience": "1", "replay": -1, "devices": 0}
            if name not in ("profile", "time", "mlflow") or value != "":  # no time is one, nor is no server
                with pytest.raises(ConfigError, match=name) as caught:
                    with_values(base_config("smoke", stage), {name: item}, "here")
                assert len(str(caught.value)) < 900 and str(caught.value).isascii() and str(caught.value).isprintable()


@pytest.mark.parametrize("stage", ["01_preprocess", "06_explore"])
def test_folders_of_bundles_lie_in_the_project(stage):
    for folder in ("data/a b", "data/\u00e6.1/", "d"):
        assert with_values(base_config("smoke", stage), {"bundle": folder}, "here").parameters["bundle"] == folder
    for folder in ("..", "/etc", "data/../../x", "data//x", "~", "~/x", "a\0b", "a\n", "x" * 3_000 + "/.."):
        with pytest.raises(ConfigError, match="bundle"):
            with_values(base_config("smoke", stage), {"bundle": folder}, "here")


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
