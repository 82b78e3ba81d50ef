"""Hostile parameter files: what a notebook's class allows is taken, all else refused before a kernel starts."""

import json
import shutil
from pathlib import Path

import pytest

from ebnerd_lib.__main__ import main
from ebnerd_lib.errors import ConfigError
from ebnerd_lib.pipeline import paths
from ebnerd_lib.pipeline import run as runner
from ebnerd_lib.pipeline.params import StageConfig, load_config, load_profile, read_schema
from ebnerd_lib.pipeline.paths import ROOT, notebook_path, parameter_file, profile_stages
from ebnerd_lib.pipeline.stale import order

PROFILE = "hostile"
STAGES = profile_stages("smoke")


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


@pytest.mark.parametrize("stage", STAGES)
def test_values_of_other_types_and_beyond_all_limits_are_refused_with_their_key(stage):
    wrong = [None, True, -1, 10**12, 10**400, 1e300, "", "..", "a/../b", "../" * 3_000, [[]], {"a": 1}]
    for name, declared in read_schema(notebook_path(stage)).items():
        for value in wrong:
            item = [value] if declared.type.startswith("list") else value
            if declared.type == "dict" and isinstance(value, dict):
                item = {"patience": "1", "replay": -1, "devices": 0} if value else value
            if name not in ("profile", "time", "mlflow") or value != "":  # no time is one, nor is no server
                assert name in refusal(stage, line(name, item))


@pytest.mark.parametrize(("stage", "key"), [("01_preprocess", "bundle"), ("06_explore", "bundle")])
def test_folders_of_bundles_lie_in_the_project(stage, key):
    for folder in ("data/a b", "data/\u00e6.1/", "d"):
        assert load(stage, line(key, folder)).parameters[key] == folder
    for folder in ("..", "/etc", "data/../../x", "data//x", "~", "~/x", "a\0b", "a\n", "x" * 3_000 + "/.."):
        assert key in refusal(stage, line(key, folder))


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9) if n else 'x'}]" for n in range(9)),
        "hidden: &a [1, *a]", "<<: &a {epochs: 3}\nseed: 1\n<<: *a", "hidden: " + "[" * 5_000, "? " * 9_000,
        "epochs: " + "9" * 5_000, "epochs: 1\n" * 2_000, "\ufeff\x00", "epochs: \x1b[31m1",
    ],
    ids=range(9),
)  # fmt: skip
def test_files_that_would_grow_or_that_mean_two_things_are_refused(text):
    refusal("02_train_mf.ids", text.encode())


@pytest.mark.parametrize(
    ("stage", "key", "value", "named"),
    [
        ("02_train_mf.ids", "reads", ["01_preprocess", "02_train_mf.ids"], r"reads\[1\]"),  # itself
        ("02_train_mf.ids", "reads", ["01_preprocess", "01_preproces"], r"reads\[1\].*'01_preprocess'"),
        ("02_train_mf.ids", "reads", ["01_preprocess", "05_compare"], "reads"),  # which reads it
        ("04_recommend", "models", ["mf_ids", "mlpp"], r"models\[1\].*'mlp'"),
        ("05_compare", "importance", ["mlp_online"], r"importance\[0\]"),
    ],
)
def test_stages_and_models_that_do_not_fit_are_refused_and_nothing_starts(project, capsys, stage, key, value, named):
    parameter_file(PROFILE, stage).write_bytes(line(key, value))
    with pytest.raises(ConfigError, match=rf"params/{PROFILE}/.*{named}"):
        order(load_profile(PROFILE))
    assert main(["run", "--profile", PROFILE]) == 1
    told = capsys.readouterr()
    assert f"params/{PROFILE}/" in told.err and told.err.count("\n") == 1 and not told.out
    assert not (project / "outputs").exists()
