"""Hostile parameter files: what a notebook declares is taken, all else refused before a kernel starts."""

import json
import shutil
from pathlib import Path

import pytest

from ebnerd_lib.__main__ import main
from ebnerd_lib.errors import ConfigError
from ebnerd_lib.pipeline import paths
from ebnerd_lib.pipeline import run as runner
from ebnerd_lib.pipeline.config import Parameter, StageConfig, load_config, read_schema
from ebnerd_lib.pipeline.domain import FORMS
from ebnerd_lib.pipeline.paths import ROOT, parameter_file, profile_stages
from ebnerd_lib.pipeline.stale import plan

PROFILE = "hostile"
SCHEMAS = {file.stem: read_schema(file) for file in sorted((ROOT / "notebooks").glob("*.ipynb"))}
PARAMETERS = [(stage, each) for stage, schema in SCHEMAS.items() for each in schema.values() if each.domain]
DECLARED = list({(each.name, each.domain): (stage, each) for stage, each in PARAMETERS}.values())  # each once


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch) -> Path:
    """The project's notebooks and modules, and a profile as smoke, in a folder of its own."""
    for name in ("notebooks", "ebnerd_lib"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "params" / "smoke", tmp_path / "params" / PROFILE)
    for module in (paths, runner):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    return tmp_path


def line(key: str, value: object) -> bytes:
    return f"{key}: {json.dumps(value)}\n".encode()


def load(stage: str, content: bytes) -> StageConfig:
    parameter_file(PROFILE, stage).write_bytes(content)
    return load_config(PROFILE, stage)


def refusal(stage: str, content: bytes) -> str:
    """Return the message with which a file is refused; it names the file in one line of plain letters."""
    with pytest.raises(ConfigError) as caught:
        load(stage, content)
    message = str(caught.value)
    assert f"params/{PROFILE}/{stage}.yaml" in message and message.isascii() and message.isprintable()
    assert len(message) < 900
    return message


def assert_taken(stage: str, parameter: Parameter, item: object, valid: bool) -> None:
    """See that a value, or a list of it, is taken as it is, or refused with its key."""
    value = [item] if parameter.type.startswith("list") else item
    if valid:
        assert load(stage, line(parameter.name, value)).parameters[parameter.name] == value
    else:
        assert parameter.name in refusal(stage, line(parameter.name, value))


def test_a_misspelt_key_is_refused_with_the_nearest_one():
    for stage, parameter in DECLARED:
        assert "unknown key" in refusal(stage, line(f"\u0430{parameter.name}", parameter.default))  # a Cyrillic a
        if len(parameter.name) > 3:
            assert f"'{parameter.name}'" in refusal(stage, line(f"{parameter.name}x", parameter.default))


def test_numbers_are_taken_up_to_their_limits():
    for stage, parameter in DECLARED:
        kind, text = int if "int" in parameter.type else float, parameter.domain.text
        for end, bracket, outwards in zip(parameter.domain.limits or (), (text[0], text[-1]), (-1, 1), strict=False):
            assert_taken(stage, parameter, kind(end), bracket in "[]")
            assert_taken(stage, parameter, kind(end) + outwards, False)


def test_texts_are_taken_only_as_they_are_declared():
    for stage, parameter in DECLARED:
        for word in parameter.domain.choices if "str" in parameter.type else ():
            assert_taken(stage, parameter, word, True)
            for wrong in (f"{word}x", word.upper(), word.replace("i", "\u0456") + " "):
                assert_taken(stage, parameter, wrong, False)
        if parameter.domain.text in FORMS:
            for wrong in ("..", "/etc", "data/../../x", "~", "a\0b", "x" * 3_000 + "/.."):
                assert_taken(stage, parameter, wrong, False)


def test_lists_hold_no_fewer_and_no_more_items_than_declared():
    for stage, parameter in DECLARED:
        if parameter.type.startswith("list"):
            many = (parameter.default or [1])[:1] * (parameter.domain.most + 1)
            for value in [many, *([[]] if parameter.domain.least else [])]:
                assert parameter.name in refusal(stage, line(parameter.name, value))


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9) if n else 'x'}]" for n in range(9)),
        "hidden: &a [1, *a]", "<<: &a {epochs: 3}\nseed: 1", "hidden: " + "[" * 5_000, "? " * 9_000,
        "epochs: " + "9" * 5_000, "# " + "x" * (1 << 20), "epochs: 1\n" * 2_000, "\ufeff\x00", "epochs: \x1b[31m1",
    ],
    ids=range(10),
)  # fmt: skip
def test_files_that_would_grow_are_refused(text):
    refusal("02_train_mf", text.encode())


@pytest.mark.parametrize(
    ("stage", "key", "value", "named"),
    [
        ("02_train_mf", "reads", ["01_preprocess", "02_train_mf"], "reads"),  # itself
        ("02_train_mf", "reads", ["01_preprocess", "09_lost"], "reads"),
        ("02_train_mf", "reads", ["01_preprocess", "05_compare"], "reads"),  # which reads it
        ("03_train_mlp", "reads", ["02_train_mf"], "01_preprocess"),  # which it opens
        ("02_train_mf", "models", ["mf_idss"], "'mf_ids'"),
        ("02_train_mf", "module", "losses", "module"),
        ("04_recommend", "models", ["mlpp"], "'mlp'"),
    ],
)
def test_stages_and_models_that_do_not_fit_are_refused_and_nothing_starts(project, capsys, stage, key, value, named):
    parameter_file(PROFILE, stage).write_bytes(line(key, value))
    with pytest.raises(ConfigError, match=named):
        plan({stage: load_config(PROFILE, stage) for stage in profile_stages(PROFILE)})
    assert main(["run", "--profile", PROFILE]) == 1
    told = capsys.readouterr()
    assert f"params/{PROFILE}/" in told.err and told.err.count("\n") == 1 and not told.out
    assert not (project / "outputs").exists()
