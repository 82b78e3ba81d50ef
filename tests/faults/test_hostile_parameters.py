"""Hostile parameter files: each is refused before a kernel starts, in one message to act on, or taken as it reads."""

import ast
import collections
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tokenize
import tracemalloc
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from share import ROOT, amount, record

from ebnerd_lib.errors import ConfigError
from ebnerd_lib.pipeline import layout
from ebnerd_lib.pipeline.config import StageConfig, load_config, read_schema
from ebnerd_lib.pipeline.layout import parameter_file, profile_stages
from ebnerd_lib.pipeline.plan import plan

PROFILE = "hostile"
SLOWEST = 5.0  # seconds that a refusal may take
LARGEST = 64 << 20  # bytes that reading a file may take
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def cell_of(notebook: Path) -> str:
    """The parameters cell, read without the package."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            return "".join(cell["source"])
    raise LookupError(notebook)


def declared(notebook: Path) -> dict[str, tuple[str, object, str]]:
    """Type, default and the words after the last ``in`` of each parameter's comment, read without the package."""
    rows = {}
    for line in cell_of(notebook).splitlines():
        node = ast.parse(line).body[0]
        comment = next(
            t.string for t in tokenize.generate_tokens(StringIO(line).readline) if t.type == tokenize.COMMENT
        )
        domain = re.search(r"(?:\d+ to \d+ )?in (?:[\[({].*|[A-Z]+)$", comment)
        rows[node.target.id] = (ast.unparse(node.annotation), ast.literal_eval(node.value), domain and domain.group())
    rows.pop("profile")
    return rows


DECLARED = {notebook.stem: declared(notebook) for notebook in NOTEBOOKS}
STAGES = ["00_audit", "01_preprocess", "02_train_mf", "03_train_mlp", "04_recommend", "05_compare", "06_explore"]
PARAMETERS = [(stage, key) for stage in STAGES for key in DECLARED[stage]]
NUMBERS = [(stage, key) for stage, key in PARAMETERS if re.search(r"int|float", DECLARED[stage][key][0])]
SETS = [(stage, key) for stage, key in PARAMETERS if "{" in DECLARED[stage][key][2]]
LISTS = [(stage, key) for stage, key in PARAMETERS if DECLARED[stage][key][0].startswith("list")]


def limits(stage: str, key: str) -> tuple[float, float, bool, bool]:
    """The ends of a declared interval, and whether each belongs to it."""
    low, high = re.search(r"[\[(](.*), (.*)[\])]$", DECLARED[stage][key][2]).groups()
    text = DECLARED[stage][key][2]
    return float(low), float(high), "[" in text, text.endswith("]")


def valid(stage: str, key: str, value: object) -> bool:
    """Whether a value is of the declared type and among the declared values, by a reading of the cell of its own."""
    kind, _, domain = DECLARED[stage][key]
    if kind.startswith("list["):
        least, most = map(int, re.match(r"(\d+) to (\d+) ", domain).groups())
        distinct = kind != "list[str]" or len(set(map(str, value))) == len(value)
        return (
            isinstance(value, list) and least <= len(value) <= most and distinct
            and all(fits(stage, key, kind[5:-1], item) for item in value)
        )  # fmt: skip
    return fits(stage, key, kind, value)


def fits(stage: str, key: str, kind: str, value: object) -> bool:
    domain = DECLARED[stage][key][2]
    if type(value).__name__ not in {"float": ("float", "int")}.get(kind, (kind,)):
        return False
    if "{" in domain:
        return str(value) in re.search(r"\{(.*)\}", domain).group(1).split(", ")
    if kind in ("int", "float"):
        low, high, with_low, with_high = limits(stage, key)
        return (low < value < high) or (value == low and with_low) or (value == high and with_high)
    return len(value) > 0 or "TIMES" in domain


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """The project's notebooks, modules and parameter files in a folder of its own."""
    root = tmp_path_factory.mktemp("parameters")
    for name in ("notebooks", "params", "ebnerd_lib"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("*.pyc"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "ROOT", root)
        yield root


@pytest.fixture(scope="module")
def tally():
    """What became of the cases, by kind; recorded at the end."""
    counts = collections.defaultdict(collections.Counter)
    counts["longest"]["seconds"] = 0
    yield counts
    longest = counts.pop("longest")["seconds"]
    record(
        "hostile_parameters",
        {
            "cases": sum(sum(kind.values()) for kind in counts.values()),
            "accepted": {kind: n["accepted"] for kind, n in counts.items() if n["accepted"]},
            "refused": {kind: n["refused"] for kind, n in counts.items() if n["refused"]},
            "longest_seconds": round(longest, 3),
        },
    )


def attempt(files: dict[str, bytes]) -> dict[str, StageConfig]:
    """Do all that `run` does before a kernel starts, in a profile made of smoke's files and those given."""
    folder = layout.ROOT / "params" / PROFILE
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(layout.ROOT / "params" / "smoke", folder)
    for stage, content in files.items():
        (folder / f"{stage}.yaml").write_bytes(content)
    configs = {stage: load_config(PROFILE, stage) for stage in profile_stages(PROFILE)}
    plan(configs)
    return configs


def outcome(tally, kind: str, files: dict[str, bytes]) -> str | dict[str, StageConfig]:
    """The message of a refusal, or the parameters; in time and in memory."""
    start = time.monotonic()
    try:
        found = attempt(files)
    except ConfigError as error:
        found = str(error)
        assert any(f"params/{PROFILE}/{stage}.yaml: " in found for stage in files), found
        assert "\n" not in found and len(found) < 900, found
        assert found.endswith((".", "?")), found
    seconds = time.monotonic() - start
    assert seconds < SLOWEST
    tally["longest"]["seconds"] = max(tally["longest"]["seconds"], seconds)
    tally[kind]["refused" if isinstance(found, str) else "accepted"] += 1
    return found


def line(key: str, value: object) -> bytes:
    return f"{key}: {json.dumps(value)}\n".encode()


def judge(tally, kind: str, stage: str, key: str, value: object) -> str:
    """Give one value: refused with its file, key and remedy, or taken as it is. Returns the message, if any."""
    found = outcome(tally, kind, {stage: line(key, value)})
    if isinstance(found, str):
        untrained = key == "reads" and "a model that a stage read trains" in found  # tells what is then missing
        assert f"params/{PROFILE}/" in found and (key in found or untrained), found
        assert re.search(r"must |holds ", found), found
        return found
    assert valid(stage, key, value), f"{stage} {key}: {value!r} was taken"
    assert found[stage].given[key] == value and found[stage].parameters[key] == value
    return ""


def cases(kinds: int):
    """Settings for one of so many kinds of equal share; the same cases in every run."""
    return settings(
        max_examples=max(1, amount(150, 570) // kinds), derandomize=True, database=None, deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )  # fmt: skip


KINDS = 13

# Keys.


def misspelt(key: str, place: int, how: str) -> str:
    place %= len(key)
    if how == "left out":
        return key[:place] + key[place + 1 :]
    if how == "twice":
        return key[:place] + key[place] + key[place:]
    if how == "look-alike":
        return key.replace("e", "\u0435").replace("a", "\u0430").replace("s", "\u0455")
    return {"case": key.capitalize(), "dash": key.replace("_", "-"), "space": key.replace("_", " ")}[how]


@cases(KINDS)
@given(
    st.sampled_from(PARAMETERS), st.integers(0, 30),
    st.sampled_from(["left out", "twice", "case", "dash", "space", "look-alike"]),
)  # fmt: skip
def test_misspelt_keys(project, tally, parameter, place, how):
    stage, key = parameter
    wrong = misspelt(key, place, how)
    text = f"{wrong}: {json.dumps(DECLARED[stage][key][1])}\n".encode()
    found = outcome(tally, "misspelt key", {stage: text})
    if isinstance(found, str) and wrong not in DECLARED[stage]:
        assert "unknown key" in found, found
        if len(wrong) > 3:
            assert "did you mean" in found or "valid keys" in found, found
        assert found.isascii(), "a letter that looks like another is shown by its code"
    else:
        assert wrong in DECLARED[stage], "a key that the notebook does not declare was taken"


@cases(KINDS)
@given(st.sampled_from(PARAMETERS), st.sampled_from(PARAMETERS), st.booleans())
def test_keys_twice(project, tally, parameter, other, apart):
    stage, key = parameter
    default = json.dumps(DECLARED[stage][key][1])
    between = f"{other[1]}: 1\n" if apart and other[1] != key else ""
    found = outcome(tally, "key twice", {stage: f"{key}: {default}\n{between}{key}: {default}\n".encode()})
    assert f"key '{key}' occurs twice" in found


# Values.

anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.floats(-2, 2), st.text(max_size=6)),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)


@cases(KINDS)
@given(st.sampled_from(PARAMETERS), anything)
def test_values_of_any_type(project, tally, parameter, value):
    judge(tally, "wrong type or nested", *parameter, value)


@cases(KINDS)
@given(st.sampled_from(NUMBERS), st.sampled_from([-1, 0, 1]), st.booleans(), st.integers(0, 3))
def test_numbers_at_and_beyond_their_limits(project, tally, parameter, step, at_top, away):
    stage, key = parameter
    kind, _, domain = DECLARED[stage][key]
    if "{" in domain:
        value = [-1, 2, 14, 1441][away] + step
    else:
        low, high, _, _ = limits(stage, key)
        value = (high if at_top else low) + step * 10.0**away
        value = int(value) if "int" in kind else value
    given_value = [value] if kind.startswith("list") else value
    message = judge(tally, "at or beyond a limit", stage, key, given_value)
    if message and not valid(stage, key, given_value):
        assert str(value) in message
        assert re.search(r"lie in [\[(].*[\])]|one of ", message), "the valid range is named"
    # A valid value may still be refused for what other files say, as models of another kind are.
    assert not message or not valid(stage, key, given_value), message


@cases(KINDS)
@given(
    st.sampled_from([(s, k) for s, k in NUMBERS if "list" not in DECLARED[s][k][0]]),
    st.sampled_from([
        "1e999", "-1e999", "1" + "0" * 400, "9" * 5000, "0x" + "f" * 6000, "-" + "9" * 30, ".inf", "-.inf", ".nan",
        "010", "1:30", "1:30.5", "0b11", "0o17", "0x10", "1_000_000_000_000", "1e-3", "١٢", "½", "1,5", "1.5.2",
    ]),
)  # fmt: skip
def test_numbers_that_are_huge_or_read_otherwise_than_they_look(project, tally, parameter, text):
    stage, key = parameter
    found = outcome(tally, "huge or odd number", {stage: f"{key}: {text}\n".encode()})
    assert isinstance(found, str), f"{key}: {text[:20]} was taken as {found[stage].parameters[key]}"
    assert key in found or "not valid YAML" in found


@cases(KINDS)
@given(st.sampled_from(SETS), st.data())
def test_words_that_are_none_of_the_valid(project, tally, parameter, data):
    stage, key = parameter
    kind, _, domain = DECLARED[stage][key]
    words = re.search(r"\{(.*)\}", domain).group(1).split(", ")
    word = data.draw(st.sampled_from(words))
    wrong = data.draw(
        st.sampled_from([word + "x", word[:-1], word.upper(), " " + word, word.replace("i", "\u0456"), ""])
    )
    value = wrong if kind == "str" else [wrong] if kind == "list[str]" else 7
    message = judge(tally, "unknown word", stage, key, value)
    if wrong not in words:
        assert "must be one of " in message and message.isascii()


@cases(KINDS)
@given(st.sampled_from(LISTS), st.data())
def test_lists_that_are_empty_long_or_repeat(project, tally, parameter, data):
    stage, key = parameter
    _, default, domain = DECLARED[stage][key]
    items = {"tiers": ["ids", "content", "exposure", "clicks"], "hidden": [8, 16], "user_ids": [1, 2],
             "leave_out": ["page", "clicks_1h"]}.get(key, default)  # fmt: skip
    value = data.draw(st.one_of(st.just([]), st.lists(st.sampled_from(items), max_size=30), st.just(items * 3)))
    message = judge(tally, "list empty, long or repeating", stage, key, value)
    if not value and not domain.startswith("0 to"):
        assert "must hold 1 to" in message and "holds 0" in message


@cases(KINDS)
@given(st.sampled_from(["bundle", "reference", "time", "module", "user_ids"]), st.sampled_from([
    "", ".", "..", "../..", "/etc", "/", "data/../../x", "data/./x", "~", "a\x00b", "data/sample\n", "C:\\data", "-x",
    "mlpp", "MLP", "os", "base", "__init__", "../mf", "2023-02-30", "2023-05-30T25:00:00", "2023-05-30T12:00:00Z",
    "yesterday", "2023-05-30T12:00", "\u0661", "data//sample", "data/" + "x" * 3000,
]))  # fmt: skip
def test_texts_that_lead_nowhere(project, tally, key, text):
    stage = next(stage for stage, each in PARAMETERS if each == key)
    value = [text] if key == "user_ids" else text
    message = judge(tally, "text of another form", stage, key, value)
    good = {"time": {"", "2023-05-30T12:00"}, "bundle": {"MLP", "os", "base", "mlpp", "__init__", "yesterday", "\u0661",
            "2023-02-30", "data/" + "x" * 3000}}  # fmt: skip
    assert (message == "") == (text in good.get(key, set())), f"{key}: {text[:40]!r}: {message or 'taken'}"


# What stages and models say of each other.


@cases(KINDS)
@given(st.data())
def test_stages_and_models_that_do_not_fit(project, tally, data):
    stage = data.draw(st.sampled_from(["02_train_mf", "03_train_mlp", "04_recommend", "05_compare", "06_explore"]))
    what = data.draw(st.sampled_from(["itself", "unknown", "circle", "lacking", "model", "other module", "importance"]))
    training, number = stage[:2] in ("02", "03"), data.draw(st.integers(0, 99))
    files = {
        "itself": {stage: line("reads", ["01_preprocess", stage])},
        "unknown": {stage: line("reads", ["01_preprocess", f"{number:02}_lost"])},
        "circle": {
            "02_train_mf": line("reads", ["01_preprocess", "03_train_mlp"]),
            "03_train_mlp": line("reads", ["01_preprocess", data.draw(st.sampled_from(["02_train_mf", "05_compare"]))]),
        },
        "lacking": {stage: line("reads", ["00_audit"])},
        "model": {stage if stage != "05_compare" else "04_recommend": line("models", [f"mf_idss{number}"])},
        "other module": {"02_train_mf": line("module", data.draw(st.sampled_from(["mlp", "nrms", "losses", "base"])))},
        "importance": {
            "05_compare": line("importance", [data.draw(st.sampled_from(["mlp_learning", "mlp_content", "x"]))])
        },
    }[what]  # fmt: skip
    found = outcome(tally, "stages and models", files)
    assert isinstance(found, str), (stage, what, training)
    assert re.search(r"(reads|models|importance|module)(\[\d\])? must", found), found
    assert re.search(r"did you mean '|use one of |add it\.|Name other stages\.", found), found


# The file.

VALID = b"epochs: 1  # few\nbatch_size: 8\n"
BOMB = "\n".join([f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9) if n else 'x'}]" for n in range(9)])
bombs = st.sampled_from([
    BOMB,
    "hidden: &a [1, *a]",
    "hidden: &a [1]\nmodels: *a",
    "a: &a {b: &b {c: 1}}\nhidden: *b",
    "<<: &a {epochs: 3}\nseed: 1",
    "hidden: " + "[" * 5_000,
    "hidden: " + "{a: " * 5_000,
    "- " * 9_000,
    "? " * 9_000,
    "".join(f"k{n}: 1\n" for n in range(2_000)),
    "epochs: &" + "a" * 10_000 + " 3\nseed: *" + "a" * 10_000,
    "module: !!binary " + "A" * 60_000,
    "# " + "x" * (1 << 20),
    "epochs: 1\n" * 2_000,
])  # fmt: skip


@cases(KINDS)
@given(bombs, st.sampled_from(["02_train_mf", "03_train_mlp"]))
def test_files_that_would_grow(project, tally, text, stage):
    tracemalloc.start()
    try:
        found = outcome(tally, "bomb", {stage: text.encode()})
        assert tracemalloc.get_traced_memory()[1] < LARGEST
    finally:
        tracemalloc.stop()
    assert isinstance(found, str), "refused, not expanded"


@cases(KINDS)
@given(
    st.sampled_from([
        "!!python/object/apply:os.system ['touch {mark}']", "!!python/object/new:os.system ['touch {mark}']",
        "!!python/name:os.system", "!!python/module:os", "!!python/object:pathlib.Path {{}}", "!!python/tuple [1]",
        "!!set {{a}}", "!!omap [a: 1]", "!!pairs [a: 1]", "!!timestamp 2023-01-01", "!!binary YQ==", "!local 3",
        "!!null x",
        "!<tag:yaml.org,2002:python/name:os.system> x", "!!int 0o7", "!!bool 1", "!!float x", "!!map {{a: 1}}",
    ]),
    st.sampled_from(PARAMETERS),
)  # fmt: skip
def test_tags_run_nothing(project, tally, tag, parameter):
    stage, key = parameter
    mark = project / "ran"
    found = outcome(tally, "tag", {stage: f"{key}: {tag.format(mark=mark)}\n".encode()})
    assert isinstance(found, str)
    assert not mark.exists()


@cases(KINDS)
@given(
    st.sampled_from([
        b"", b"\n\n", b"---\n", b"# nothing\n", b"\xef\xbb\xbf" + VALID, VALID.replace(b"\n", b"\r\n"), VALID[:-1],
        VALID.replace(b"\n", b"\r"), b"--- \n" + VALID + b"...\n", b"%YAML 1.1\n---\n" + VALID,
        VALID.decode().encode("utf-16"), VALID.decode().encode("utf-16-le"), VALID.decode().encode("utf-32"),
        b"epochs:\t1\n\tbatch_size: 8\n", b"\tepochs: 1\n", b"epochs:1\n", b"epochs = 1\n", b"{epochs: 1", b"[]", b"3",
        b"text", b"epochs: 1\n---\nepochs: 2\n", b"epochs: 1\x00", b"epochs: \x1b[31m1", b"epochs: \xc3\x28",
        b"PK\x03\x04", b"\x7fELF", b"epochs: '1", b"epochs: |\n  1\n", b"epochs: ? 1\n", b"@epochs: 1",
        b"`epochs`: 1", b"%epochs: 1", b"{epochs: 1}", b'"epochs": 1\n', b"? epochs\n: 1\n", b"epochs:\n  - 1\n",
        b"epochs: 1 # x\n batch_size: 8\n", b"no: 1\n",
        b"1: 1\n",
    ]) | st.binary(max_size=60),
    st.sampled_from(["02_train_mf", "03_train_mlp"]),
)  # fmt: skip
def test_files_that_are_not_what_they_seem(project, tally, content, stage):
    found = outcome(tally, "file of another form", {stage: content})
    if not isinstance(found, str):
        assert found[stage].given in ({}, {"epochs": 1}, {"epochs": 1, "batch_size": 8}), content
        for key in found[stage].given:
            assert key.encode() in content


def valid_values(stage: str, key: str) -> list[object]:
    """The limits themselves, or every word of a set, or the default."""
    kind, default, domain = DECLARED[stage][key]
    if "{" in domain:
        words = re.search(r"\{(.*)\}", domain).group(1).split(", ")
        values = [int(word) for word in words] if "int" in kind else words
    elif re.search(r"int|float", kind):
        low, high, with_low, with_high = limits(stage, key)
        values = [low] * with_low + [high] * with_high
        values = values if kind == "float" else [int(value) for value in values]
    else:
        return [default]
    return [[value] for value in values] if kind.startswith("list") else values


@pytest.mark.parametrize("stage", STAGES)
def test_valid_values_are_taken(project, tally, stage):
    choices = {key: valid_values(stage, key) for key in DECLARED[stage]}
    for round_ in range(max(map(len, choices.values()))):
        given_values = {key: values[round_ % len(values)] for key, values in choices.items()}
        found = outcome(tally, "valid values", {stage: b"".join(line(*item) for item in given_values.items())})
        assert not isinstance(found, str), found
        assert found[stage].given == given_values
        assert all(valid(stage, key, value) for key, value in given_values.items())


@pytest.mark.parametrize("what", ["folder", "missing"])
def test_no_file_at_all(project, what):
    attempt({})
    file = parameter_file(PROFILE, "02_train_mf")
    file.unlink()
    if what == "folder":
        file.mkdir()
    with pytest.raises(ConfigError, match=rf"params/{PROFILE}/02_train_mf\.yaml: (cannot be read|no such)"):
        load_config(PROFILE, "02_train_mf")


@pytest.mark.parametrize(
    ("stage", "text", "expected"),
    [
        ("03_train_mlp", "epochs: 0", r"params/hostile/03_train_mlp\.yaml: epochs must lie in \[1, 1000\]; it is 0\."),
        ("04_recommend", 'models: ["mpl"]', r"04_recommend\.yaml: models\[0\] must be .*; did you mean 'mlp'\?"),
        ("05_compare", 'reads: ["05_compare"]', r"05_compare\.yaml: reads\[0\] must be a stage of the profile"),
    ],
)
def test_the_command_line_says_it_in_one_line_and_starts_nothing(project, stage, text, expected):
    attempt({})
    parameter_file(PROFILE, stage).write_text(text)
    words = [sys.executable, "-m", "ebnerd_lib", "run", "--profile", PROFILE]
    environment = {**os.environ, "PYTHONPATH": str(project)}
    done = subprocess.run(words, cwd=project, capture_output=True, text=True, env=environment, timeout=30)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(rf"ConfigError: .*{expected}.*\n", done.stderr), done.stderr
    assert not (project / "outputs").exists()


# What the notebooks declare.


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_every_parameter_declares_its_values_and_its_default_is_one(notebook):
    schema = read_schema(notebook)
    for name, parameter in schema.items():
        if name == "profile" or parameter.type == "bool":
            continue
        assert parameter.domain is not None, f"{name} declares no values"
        assert parameter.domain.fault(name, parameter.default) == ""
        if "int" in parameter.type or "float" in parameter.type:
            assert parameter.domain.limits or parameter.domain.choices, f"{name} declares no range"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("epochs: int = 0  # passes, in [1, 10]", r"epochs must lie in \[1, 10\]; it is 0"),
        ("epochs: int = 1  # passes, in [9, 1]", "parameter epochs: '.9, 1.' holds nothing"),
        ("epochs: int = 1  # passes, in [a, 1]", "parameter epochs: could not convert"),
        ("epochs: int = 1  # passes, 1 to 2 in [0, 1]", "only for a list"),
        ("epochs: int = 1  # passes, in NAMES", "which are for text"),
        ("names: list[str] = ['a']  # of, in NAMES", "needs `N to M` before it for a list"),
        ("names: list[str] = ['a']  # of, 2 to 1 in NAMES", "'2 to 1' holds nothing"),
        ("name: str = 'a'  # of, in [1, 2]", "is for numbers"),
        ("name: str = 'a'  # of, in PLACES", "is none of NAMES, STAGES, FOLDERS, TIMES"),
    ],
)
def test_declarations_that_say_nothing(tmp_path, line, expected):
    cell = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": [line]}
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": [cell]}), encoding="utf-8")
    with pytest.raises(ConfigError, match=expected):
        read_schema(tmp_path / "a.ipynb")
