"""A stage as its notebook sees it: artifacts appear whole or not at all."""

import hashlib
import json

import pytest

from ebnerd_lib.pipeline import paths, stage, stale
from ebnerd_lib.pipeline.params import StageConfig


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """A stage without inputs that has begun in a project of its own."""
    for module in (paths, stage, stale):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    return stage.Stage(StageConfig("02_try", "smoke", {"seed": 3}, {}))


def test_artifacts_appear_whole_or_not_at_all(begun, tmp_path):
    visible = tmp_path / "outputs" / "smoke" / "artifacts" / "02_try"
    (begun.folder / "scores.txt").write_text("1")
    begun.metrics = {"auc": float("nan")}
    with pytest.raises(ValueError, match="JSON"):
        begun.finish()
    assert not visible.exists()
    begun.metrics = {"auc": 0.5}
    begun.finish()
    assert {path.name for path in visible.iterdir()} == {"scores.txt", "metrics.json", "manifest.json"}
    manifest = json.loads((visible / "manifest.json").read_text())
    assert manifest["outputs"] == {
        name: hashlib.sha256((visible / name).read_bytes()).hexdigest() for name in ("metrics.json", "scores.txt")
    }
    assert list(visible.parent.iterdir()) == [visible]


def test_a_complete_stage_leaves_no_training_to_resume(begun):
    checkpoint = begun.logs / "mlp" / "0123" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    begun.metrics = {"auc": float("nan")}
    with pytest.raises(ValueError, match="JSON"):
        begun.finish()
    assert checkpoint.exists(), "a stage that failed resumes"
    begun.metrics = {}
    begun.finish()
    assert not checkpoint.exists()
