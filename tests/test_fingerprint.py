"""What makes a stage stale, and what does not."""

import json
import os
from collections.abc import Callable
from modulefinder import ModuleFinder
from pathlib import Path

import pytest

from ebnerd_lib.errors import BundleError
from ebnerd_lib.pipeline import paths
from ebnerd_lib.pipeline import stale as fp
from ebnerd_lib.pipeline.params import StageConfig, base_config, code_cells
from ebnerd_lib.pipeline.paths import notebook_path
from ebnerd_lib.pipeline.stale import Hashes, fingerprint, sha256, stage_modules

REPO = Path(__file__).resolve().parents[1]
MODULES = {
    "__init__.py": "",
    "errors.py": "class Wrong(Exception): pass\n",
    "data/__init__.py": "",
    "data/table.py": "import pandas\n\ndef read():\n    from ebnerd_lib.errors import Wrong\n",
    "deep/__init__.py": "from ebnerd_lib.deep.hidden import x\n",
    "deep/hidden.py": "import ebnerd_lib.deep.circle\nx = 1\n",
    "deep/inner.py": "y = 2\n",
    "deep/circle.py": "import ebnerd_lib.deep.hidden\n",
    "models/__init__.py": "",
    "models/base.py": "class Model: pass\n",
    "models/mf.py": "from ebnerd_lib.models.base import Model\n",
    "models/other.py": "from ebnerd_lib.models.base import Model\n",
    "plots.py": "import ebnerd_lib.errors\n",
}
IN_CLOSURE = [
    "__init__.py", "data/__init__.py", "data/table.py", "deep/__init__.py", "deep/circle.py", "deep/hidden.py",
    "deep/inner.py", "errors.py", "models/__init__.py", "models/base.py", "models/mf.py",
]  # fmt: skip
CELLS = [
    ("markdown", "# A stage"),
    ("code", "%matplotlib inline\nimport ebnerd_lib.deep.inner as inner\nfrom ebnerd_lib.data import table\n!ls\n"),
    ("code", "1 + 1"),
]


class Project:
    """A package, a bundle, an earlier stage's artifacts and one notebook, in a folder of their own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name, source in MODULES.items():
            self.write(f"ebnerd_lib/{name}", source)
        for name in ("articles", *(f"{s}/{t}" for s in ("train", "validation") for t in ("behaviors", "history"))):
            self.write(f"data/real/{name}.parquet", name)
        self.write("outputs/test/artifacts/01_first/slates.parquet", "slates")
        self.write("outputs/test/artifacts/01_first/manifest.json", '{"duration_seconds": 1}')
        self.stage = "02_train_news"
        self.cells(CELLS)
        self.parameters = {"bundle": "data/real", "model": "mf", "reads": ["01_first"], "epochs": 3, "rate": 0.1}

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def cells(self, cells: list[tuple[str, str]], **metadata) -> None:
        written = [
            {"cell_type": kind, "source": source.splitlines(keepends=True), "metadata": metadata, "id": str(place)}
            | ({"outputs": [metadata], "execution_count": len(metadata)} if kind == "code" else {})
            for place, (kind, source) in enumerate(cells)
        ]
        self.write("notebooks/02_train_news.ipynb", json.dumps({"cells": written, "metadata": metadata, "nbformat": 4}))

    def config(self) -> StageConfig:
        return StageConfig(self.stage, "test", self.parameters, {}, tuple(self.parameters["reads"]))

    def fingerprint(self) -> str:
        fp.module_files.cache_clear()  # a process sees one set of files; here they change between two looks
        return fingerprint(self.config(), Hashes(self.root / "hashes.json"))

    def closure(self) -> list[str]:
        fp.module_files.cache_clear()
        return [path.relative_to(self.root / "ebnerd_lib").as_posix() for path in stage_modules(self.config())]


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(fp, "ROOT", tmp_path)
    yield Project(tmp_path)
    fp.module_files.cache_clear()


def changes(project: Project, change: Callable[[], object]) -> bool:
    before = project.fingerprint()
    assert project.fingerprint() == before, "a second look sees the same"
    change()
    return project.fingerprint() != before


def test_any_cell_counts(project):
    for place, (kind, source) in enumerate(CELLS):
        edited = [*CELLS[:place], (kind, source + " # edited"), *CELLS[place + 1 :]]
        assert changes(project, lambda cells=edited: project.cells(cells))
    for cells in (CELLS[:2], [CELLS[1], CELLS[0], CELLS[2]], [*CELLS[:2], ("markdown", "1 + 1")]):
        assert changes(project, lambda cells=cells: project.cells(cells)), "number, order and kind"


def test_outputs_and_metadata_and_the_way_a_notebook_is_written_do_not_count(project):
    def join() -> None:
        content = json.loads(notebook_path("02_train_news").read_text())
        for cell in content["cells"]:
            cell["source"] = "".join(cell["source"])
        notebook_path("02_train_news").write_text(json.dumps(content, indent=1))

    assert not changes(project, lambda: project.cells(CELLS, tags=["hidden"], kernel="python4"))
    assert not changes(project, join)


def test_any_parameter_counts_and_their_order_does_not(project):
    for key, value in (("epochs", 4), ("rate", 0.2), ("reads", []), ("new", None)):
        assert changes(project, lambda key=key, value=value: project.parameters.update({key: value}))
    backwards = dict(reversed(project.parameters.items()))
    assert not changes(project, lambda: setattr(project, "parameters", backwards))


def test_modules_of_the_closure_count_with_and_without_ipython_syntax_and_others_do_not(project):
    for source in ("1 + 1", "%%bash\nfor f in *; do echo $f; done", "files = !ls", "data?", "if True:\n    %time 1\n"):
        project.cells([*CELLS, ("code", source)])
        assert project.closure() == IN_CLOSURE
    for name in (*IN_CLOSURE, "models/other.py", "plots.py", "brand_new.py"):
        text = MODULES.get(name, "") + "# edited\n"
        counts = changes(project, lambda name=name, text=text: project.write(f"ebnerd_lib/{name}", text))
        assert counts is (name in IN_CLOSURE), name
    project.write("ebnerd_lib/data/table.py", "from ebnerd_lib import plots\n")
    assert changes(project, lambda: project.write("ebnerd_lib/plots.py", "")), "a new import"


def test_the_module_named_by_the_parameter_counts_and_no_other(project):
    project.parameters["model"] = "other"
    assert {"models/base.py", "models/other.py"} < set(project.closure()) and "models/mf.py" not in project.closure()
    del project.parameters["model"]
    assert [name for name in project.closure() if name.startswith("models/")] == []


def test_bytes_of_the_bundle_count_and_times_and_other_files_do_not(project):
    def touch() -> None:
        for path in project.root.rglob("*"):
            os.utime(path, (1, 1))

    for name in ("articles.parquet", "train/behaviors.parquet", "validation/history.parquet", "generated.json"):
        assert changes(project, lambda name=name: project.write(f"data/real/{name}", f"{name}, other"))
    assert changes(project, lambda: project.write("data/real/articles.parquet", "Articles.parquet, other")), "same size"
    assert not changes(project, lambda: project.write("data/real/notes.txt", "x"))
    assert not changes(project, touch)
    (project.root / "data/real/articles.parquet").unlink()
    with pytest.raises(BundleError, match=r"articles\.parquet"):
        project.fingerprint()


def test_artifacts_read_count_but_their_manifest_does_not(project):
    folder = "outputs/test/artifacts/01_first"
    assert not changes(project, lambda: project.write(f"{folder}/manifest.json", '{"duration_seconds": 2}'))
    assert changes(project, lambda: project.write(f"{folder}/slates.parquet", "other slates"))
    assert changes(project, lambda: project.write(f"{folder}/more.parquet", "more"))
    project.parameters["reads"] = []
    assert not changes(project, lambda: project.write(f"{folder}/slates.parquet", "slates once more"))


def test_checksums_are_remembered_until_size_or_time_of_a_file_changes(project, monkeypatch):
    store, file = project.root / "logs" / "hashes.json", project.write("data/real/articles.parquet", "abc")
    os.utime(file, ns=(10**18, 10**18))
    hashes = Hashes(store)
    assert hashes.of(file) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    hashes.save()
    assert list(store.parent.iterdir()) == [store], "no temporary is left"
    reads = []
    monkeypatch.setattr(fp, "sha256", lambda path: reads.append(path) or sha256(path))
    assert Hashes(store).of(file) == hashes.of(file) and reads == []
    for text, time in (("abcd", 10**18), ("abce", 10**18 + 1)):
        file.write_text(text)
        os.utime(file, ns=(time, time))
        assert hashes.of(file) == sha256(file) and reads.pop() == file


@pytest.mark.parametrize("content", ["", "{", "\xff", "null", '{"FILE": 7}', '{"FILE": [SIZE, TIME]}'])
def test_a_corrupt_store_only_costs_time(project, content):
    store, file = project.root / "hashes.json", project.root / "data/real/articles.parquet"
    known = {"FILE": "data/real/articles.parquet", "SIZE": file.stat().st_size, "TIME": file.stat().st_mtime_ns}
    for name, value in known.items():
        content = content.replace(name, str(value))
    store.write_text(content, encoding="latin-1")
    hashes = Hashes(store)
    assert hashes.of(file) == sha256(file)
    hashes.save()
    assert Hashes(store).of(file) == sha256(file)


@pytest.mark.parametrize("stage", sorted(path.stem for path in (REPO / "notebooks").glob("*.ipynb")))
def test_the_closure_of_a_notebook_is_what_python_finds(stage, tmp_path):
    """The standard library's finder of modules is the oracle: it reads bytecode."""
    config = base_config("smoke", stage)
    lines = [line for cell in code_cells(notebook_path(stage)) for line in cell["source"].splitlines()]
    imports = [line.strip() for line in lines if line.lstrip().startswith(("import ", "from "))]
    if "model" in config.parameters:
        imports.append(f"import ebnerd_lib.models.{fp.model_module(config.parameters['model'])}")
    (tmp_path / "script.py").write_text("\n".join(imports))
    finder = ModuleFinder(path=[str(REPO)])
    finder.run_script(str(tmp_path / "script.py"))
    found = {Path(m.__file__).resolve() for name, m in finder.modules.items() if name.startswith("ebnerd_lib")}
    assert len(found) > 10
    assert set(stage_modules(config)) == found


def test_what_changed_is_told_by_kind(project):
    config, hashes = project.config(), Hashes(project.root / "hashes.json")
    inputs = {paths.relative(file): sha256(file) for file in input_files(config)}
    manifest = {"fingerprint": project.fingerprint(), "parameters": dict(project.parameters), "inputs": inputs}
    assert fp.changes(config, manifest, hashes) == ""
    project.cells(CELLS[:2])
    assert "notebook" in fp.changes(config, manifest, hashes)
    file = project.write("outputs/test/artifacts/01_first/slates.parquet", "other slates")
    assert fp.changes(config, manifest, hashes).endswith(f"inputs changed: {paths.relative(file)}")
    project.parameters["epochs"] = 4
    assert fp.changes(project.config(), manifest, hashes).endswith("epochs 3, now 4")
