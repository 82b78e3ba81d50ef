"""Parameters: the notebook's cell as schema, YAML files and namespaces checked against it."""

import io
import json
import math
import re
import tokenize
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ebnerd_lib.errors import ConfigError
from ebnerd_lib.pipeline import layout
from ebnerd_lib.pipeline.config import code_cells, from_namespace, load_config, read_schema
from ebnerd_lib.pipeline.layout import notebook_path, profile_stages

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


def notebook(*cells: tuple[list[str], str]) -> str:
    return json.dumps(
        {
            "cells": [
                {"cell_type": "code", "metadata": {"tags": tags}, "source": source.splitlines(keepends=True)}
                for tags, source in cells
            ],
            "nbformat": 4, "nbformat_minor": 5, "metadata": {},
        }
    )  # fmt: skip


class Project:
    """A project of one notebook and one parameter file in a folder of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "notebooks").mkdir()
        (root / "params" / "test").mkdir(parents=True)
        self.notebook(PARAMETERS)
        self.file = root / "params" / "test" / "01_stage.yaml"

    def notebook(self, source: str) -> Path:
        path = self.root / "notebooks" / "01_stage.ipynb"
        path.write_text(notebook(([], "import math"), (["parameters"], source)), encoding="utf-8")
        return path

    def load(self, text: str | bytes):
        self.file.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_config("test", "01_stage")

    def refusal(self, text: str | bytes) -> str:
        with pytest.raises(ConfigError) as caught:
            self.load(text)
        assert "params/test/01_stage.yaml" in str(caught.value)
        return str(caught.value)


@pytest.fixture
def project(tmp_path, monkeypatch) -> Project:
    monkeypatch.setattr(layout, "ROOT", tmp_path)
    return Project(tmp_path)


# The schema.


def test_schema_of_a_notebook(project):
    schema = read_schema(notebook_path("01_stage"))
    assert list(schema) == ["profile", "reads", "epochs", "learning_rate", "hidden", "shares", "verbose", "split"]
    rate = schema["learning_rate"]
    assert (rate.name, rate.type, rate.default, rate.help) == ("learning_rate", "float", 0.001, "of AdamW")


def test_a_hash_within_a_text_is_no_help(project):
    schema = read_schema(project.notebook('color: str = "# red"  # of a line\nplain: int = 1'))
    assert (schema["color"].default, schema["color"].help) == ("# red", "of a line")
    assert schema["plain"].help == ""


def test_whole_number_is_a_fine_default_of_a_float(project):
    default = read_schema(project.notebook("rate: float = 1"))["rate"].default
    assert (default, type(default)) == (1.0, float)


@pytest.mark.parametrize("tags", [[], [["parameters"], ["parameters"]], [["injected-parameters"]]])
def test_there_must_be_one_tagged_cell(project, tags):
    path = project.root / "notebooks" / "01_stage.ipynb"
    path.write_text(notebook(*((tag, PARAMETERS) for tag in tags)), encoding="utf-8")
    count = sum("parameters" in tag for tag in tags)
    with pytest.raises(ConfigError, match=rf"notebooks/01_stage\.ipynb: {count} cells are tagged 'parameters'"):
        read_schema(path)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("epochs = 12", "'epochs = 12  # help' is not of the form"),
        ("epochs: int", "'epochs: int  # help' is not of the form"),
        ("import os", "'import os  # help' is not of the form"),
        ("a.b: int = 1", "not of the form"),
        ("epochs: Path = 1", "parameter epochs: type Path; use one of"),
        ("epochs: list = []", "parameter epochs: type list; use one of"),
        ("grid: list[list[int]] = [[1]]", r"parameter grid: type list\[list\[int\]\]; use one of"),
        ("epochs: int = 2 * 6", "parameter epochs: its default must be a literal"),
        ("epochs: int = len([])", "parameter epochs: its default must be a literal"),
        ("epochs: int = other", "parameter epochs: its default must be a literal"),
        ("epochs: int = {[]: 1}", "parameter epochs: its default must be a literal"),
        ('epochs: int = "12"', "epochs must be int; '12' is str"),
        ("epochs: int = True", "epochs must be int; True is bool"),
        ("rate: float = 1e999", "rate must be a finite number"),
        ("hidden: list[int] = [1, 2.5]", r"hidden\[1\] must be int; 2.5 is float"),
        ("hidden: list[int] = (1, 2)", "hidden must be a list"),
    ],
)
def test_lines_that_declare_nothing(project, line, expected):
    path = project.notebook(f"seed: int = 0  # of draws\n{line}  # help\n")
    with pytest.raises(ConfigError, match=expected) as caught:
        read_schema(path)
    assert "notebooks/01_stage.ipynb" in str(caught.value)


@pytest.mark.parametrize("line", ["epochs: int = (", "epochs: int = 1 2", "  epochs: int = 1", "epochs: int = '"])
def test_parameters_that_are_not_python(project, line):
    with pytest.raises(ConfigError, match=r"notebooks/01_stage\.ipynb"):
        read_schema(project.notebook(f"seed: int = 0\n{line}\n"))


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"cells": 5}', '"text"', "null"])
def test_files_that_are_no_notebooks(project, content):
    path = notebook_path("01_stage")
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"notebooks/01_stage\.ipynb: not a notebook"):
        code_cells(path)


def test_missing_notebook(project):
    with pytest.raises(ConfigError, match=r"notebooks/09_lost\.ipynb: no such notebook"):
        read_schema(notebook_path("09_lost"))


# Parameter files.


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "---\n", "{}"])
def test_empty_file_gives_the_defaults(project, text):
    config = project.load(text)
    assert config.given == {}
    assert config.parameters == {
        "profile": "test", "reads": [], "epochs": 12, "learning_rate": 0.001, "hidden": [128, 64], "shares": [0.5],
        "verbose": False, "split": "official",
    }  # fmt: skip


def test_given_values_take_the_place_of_defaults(project):
    config = project.load('epochs: 3  # few\nsplit: "quantile"\nhidden: [8]\nreads: ["00_audit"]\nverbose: true\n')
    assert config.given == {"epochs": 3, "split": "quantile", "hidden": [8], "reads": ["00_audit"], "verbose": True}
    assert list(config.parameters)[:3] == ["profile", "reads", "epochs"], "in the notebook's order"
    assert config.parameters["learning_rate"] == 0.001
    assert (config.stage, config.profile, config.reads) == ("01_stage", "test", ["00_audit"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("epoch: 3", "unknown key 'epoch'; did you mean 'epochs'?"),
        ("learning-rate: 0.1", "unknown key 'learning-rate'; did you mean 'learning_rate'?"),
        ("Epochs: 3", "unknown key 'Epochs'; did you mean 'epochs'?"),
        ("zzz: 3", "unknown key 'zzz'; valid keys: reads, epochs, learning_rate, hidden, shares, verbose, split."),
        ('profile: "other"', "profile is given by the folder's name"),
    ],
)
def test_unknown_key(project, text, expected):
    assert expected in project.refusal(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("learning_rate: 1e-3", "must be float; '1e-3' is str. Write floats with a point and a sign, as 1.0e-3."),
        ("learning_rate: true", "learning_rate must be float; True is bool"),
        ("learning_rate: .nan", "learning_rate must be a finite number; it is nan"),
        ("learning_rate: -.inf", "learning_rate must be a finite number; it is -inf"),
        ("shares: [0.5, .inf]", "shares[1] must be a finite number"),
        ("epochs: yes", "epochs must be int; True is bool"),
        ("epochs: 3.0", "epochs must be int; 3.0 is float"),
        ("epochs: '3'", "epochs must be int; '3' is str"),
        ("epochs:", "epochs must be int; None is NoneType"),
        ("verbose: 1", "verbose must be bool; 1 is int"),
        ("verbose: 'no'", "verbose must be bool; 'no' is str"),
        ("split: no", "split must be str; False is bool. Put it in quotes."),
        ("split: 2023-05-30", "split must be str; datetime.date(2023, 5, 30) is date. Put it in quotes."),
        ("split: 7", "split must be str; 7 is int. Put it in quotes."),
        ("hidden: 64", "hidden must be a list, as in [64]"),
        ("hidden: [64, big]", "hidden[1] must be int; 'big' is str"),
        ("hidden: [[64]]", "hidden[0] must be int; [64] is list"),
        ("hidden: {a: 1}", "hidden must be a list"),
        ("reads: [01_preprocess, no]", "reads[1] must be str; False is bool"),
    ],
)  # fmt: skip
def test_wrong_type(project, text, expected):
    assert expected in project.refusal(text)


@pytest.mark.parametrize(("text", "value"), [("1", 1.0), ("0", 0.0), ("1.0e-3", 0.001), ("1.e+2", 100.0)])
def test_numbers_that_are_floats(project, text, value):
    rate = project.load(f"learning_rate: {text}").parameters["learning_rate"]
    assert (rate, type(rate)) == (value, float)


def test_whole_numbers_within_a_list_of_floats(project):
    shares = project.load("shares: [1, 0.5]").parameters["shares"]
    assert [(share, type(share)) for share in shares] == [(1.0, float), (0.5, float)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("epochs: 3\nsplit: x\nepochs: 4", "key 'epochs' occurs twice"),
        ("1: 2", "key 1 is no text"),
        ("no: 2", "key False is no text"),
        ("null: 2", "key None is no text"),
        ("? [a, b]\n: 2", "is no text"),
        ("epochs: [3", "not valid YAML"),
        ("epochs: 3\n  split: 4", "not valid YAML"),
        ("epochs: 3\n\tsplit: 4", "not valid YAML"),
        ("epochs: 3\n---\nepochs: 4", "not valid YAML"),
        ("epochs: *lost", "not valid YAML"),
        ("split: 2023-13-45", "not valid YAML"),
        ("<<: {epochs: 3}", "not valid YAML"),
        (b"split: \xff\xfe", "not valid YAML"),
        (b"split: \x00", "not valid YAML"),
        ("- epochs", "holds a list"),
        ("epochs", "holds a str"),
        ("12", "holds a int"),
    ],
)
def test_malformed_file(project, text, expected):
    assert expected in project.refusal(text)


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.getcwd []",
        "!!python/name:os.system",
        "!!python/tuple [1]",
        "!!python/object:ebnerd_lib.errors.ConfigError {}",
        "!custom 3",
        "!!timestamp nonsense",
        "!!bool nonsense",
        "!!int ''",
        "!!int nonsense",
        "!!float nonsense",
        "!!binary é",
        "!!set [1]",
    ],
)
def test_tags_are_refused(project, value):
    assert "not valid YAML" in project.refusal(f"split: {value}")


@pytest.mark.parametrize(
    "text",
    ["learning_rate: 1" + "0" * 400, "epochs: " + "9" * 5000, "hidden: " + "[" * 3000 + "]" * 3000, "hidden: &a [*a]"],
    ids=["beyond float", "beyond int", "deep", "itself"],
)
def test_extreme_values(project, text):
    project.refusal(text)


def test_missing_parameter_file(project):
    with pytest.raises(ConfigError, match=r"params/test/01_stage\.yaml: no such parameter file"):
        load_config("test", "01_stage")


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.dates(), st.binary(max_size=4)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(["profile", "reads", "epochs", "learning_rate", "hidden", "shares", "verbose", "split"])
lenient = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
KINDS = {
    "epochs": int,
    "learning_rate": float,
    "verbose": bool,
    "split": str,
    "reads": str,
    "hidden": int,
    "shares": float,
}


def assert_of_declared_types(parameters: dict) -> None:
    for key, kind in KINDS.items():
        value = parameters[key]
        for item in value if key in ("reads", "hidden", "shares") else [value]:
            assert type(item) is kind
            assert kind is not float or math.isfinite(item)


@lenient
@given(st.dictionaries(keys | st.text(max_size=8), values, max_size=4))
def test_any_content_is_loaded_or_refused(project, content):
    try:
        config = project.load(yaml.safe_dump(content, allow_unicode=True))
    except ConfigError as error:
        assert "params/test/01_stage.yaml" in str(error)
    else:
        assert set(config.given) == set(content)
        assert_of_declared_types(config.parameters)


@lenient
@given(st.text(alphabet="ab: -\n[]{}#&*!|>'\"%@?,.0189e~\t", max_size=30) | st.binary(max_size=20))
def test_any_text_is_loaded_or_refused(project, text):
    try:
        config = project.load(text)
    except ConfigError as error:
        assert "params/test/01_stage.yaml" in str(error)
    else:
        assert_of_declared_types(config.parameters)


# Variables of a notebook.

SET = {
    "profile": "mine", "reads": [], "epochs": 12, "learning_rate": 1, "hidden": [8], "shares": [1], "verbose": False,
    "split": "official", "pi": 3.14, "__name__": "__main__",
}  # fmt: skip


def test_namespace(project):
    config = from_namespace("01_stage", SET)
    assert (config.profile, config.parameters["hidden"]) == ("mine", [8])
    assert config.given == {"profile": "mine", "learning_rate": 1.0, "hidden": [8], "shares": [1.0]}
    assert "pi" not in config.parameters
    assert_of_declared_types(config.parameters)


def test_namespace_without_a_parameter(project):
    with pytest.raises(ConfigError, match=r"01_stage: parameter epochs, split is not set\. Run the parameters cell"):
        from_namespace("01_stage", {k: v for k, v in SET.items() if k not in ("epochs", "split")})


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("epochs", "3", r"01_stage\.ipynb: epochs must be int; '3' is str"),
        ("epochs", True, "epochs must be int; True is bool"),
        ("hidden", (8,), "hidden must be a list"),
        ("learning_rate", math.nan, "learning_rate must be a finite number"),
        ("profile", None, "profile must be str; None is NoneType"),
    ],
)
def test_namespace_of_a_wrong_type(project, key, value, expected):
    with pytest.raises(ConfigError, match=expected):
        from_namespace("01_stage", {**SET, key: value})


@lenient
@given(keys, values)
def test_any_namespace_is_taken_or_refused(project, key, value):
    try:
        config = from_namespace("01_stage", {**SET, key: value})
    except ConfigError as error:
        assert key in str(error)
    else:
        assert_of_declared_types(config.parameters)


# Profiles.


def test_stages_of_a_profile(project):
    project.load("")
    (project.root / "notebooks" / "02_next.ipynb").write_text("{}")
    project.file.with_name("02_next.yaml").write_text("")
    assert profile_stages("test") == ["01_stage", "02_next"]


def test_profiles_that_there_are_not(project):
    (project.root / "params" / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"params/lost: no such profile\. Use one of empty, test"):
        profile_stages("lost")
    with pytest.raises(ConfigError, match="params/empty: no parameter files"):
        profile_stages("empty")


def test_parameter_file_without_a_notebook(project):
    project.file.with_name("07_gone.yaml").write_text("")
    with pytest.raises(ConfigError, match=r"params/test/07_gone\.yaml: there is no notebooks/07_gone\.ipynb"):
        profile_stages("test")


# The repository's own files.

FILES = sorted(file for file in (REPO / "params").glob("*/*.yaml") if file.parent.name != "study")


def names(file: Path) -> str:
    return f"{file.parent.name}/{file.stem}"


def test_the_repository_has_parameter_files():
    assert {file.parent.name for file in FILES} >= {
        "smoke",
        "sample",
        "original",
        "ebnerd_demo",
        "ebnerd_small",
        "ebnerd_large",
    }


@pytest.mark.parametrize("file", FILES, ids=names)
def test_parameter_file_loads_against_its_notebook(file):
    config = load_config(file.parent.name, file.stem)
    assert config.parameters["profile"] == file.parent.name
    assert set(config.reads) <= set(profile_stages(file.parent.name)), "reads stages of its own profile"
    assert all(stage < file.stem for stage in config.reads), "reads earlier stages"


@pytest.mark.parametrize("file", FILES, ids=names)
def test_parameter_file_holds_only_what_differs(file):
    schema = read_schema(notebook_path(file.stem))
    given = load_config(file.parent.name, file.stem).given
    assert [key for key, value in given.items() if value == schema[key].default] == []


@pytest.mark.parametrize("file", FILES, ids=names)
def test_parameter_file_has_a_comment_on_each_key(file):
    lines = [line for line in file.read_text().splitlines() if line.strip() and not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[a-z_0-9]+: .*\S  # \S.*", line)] == []
    assert len(lines) == len(load_config(file.parent.name, file.stem).given), "flat: one key a line"


@pytest.mark.parametrize("file", sorted((REPO / "notebooks").glob("*.ipynb")), ids=lambda file: file.stem)
def test_every_parameter_of_a_notebook_has_its_help_on_its_line(file):
    schema = read_schema(file)
    assert [name for name, parameter in schema.items() if not parameter.help] == []
    (source,) = [c["source"] for c in code_cells(file) if "parameters" in c["metadata"].get("tags", [])]
    assert len(source.strip().splitlines()) == len(schema), "one parameter a line"
    comments = [t for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type == tokenize.COMMENT]
    assert len(comments) == len(schema)
