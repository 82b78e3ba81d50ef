"""What makes a stage stale, and what does not."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from modulefinder import ModuleFinder
from pathlib import Path

import pytest

from ebnerd_lib.errors import BundleError
from ebnerd_lib.pipeline import fingerprint as fp
from ebnerd_lib.pipeline import layout
from ebnerd_lib.pipeline.config import StageConfig, code_cells, load_config
from ebnerd_lib.pipeline.fingerprint import Hashes, fingerprint, input_files, sha256, stage_modules
from ebnerd_lib.pipeline.layout import notebook_path

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
        self.cells(CELLS)
        self.parameters = {"bundle": "data/real", "module": "mf", "reads": ["01_first"], "epochs": 3, "rate": 0.1}

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
        self.write("notebooks/02_stage.ipynb", json.dumps({"cells": written, "metadata": metadata, "nbformat": 4}))

    def config(self) -> StageConfig:
        return StageConfig("02_stage", "test", self.parameters, {})

    def fingerprint(self) -> str:
        fp.module_files.cache_clear()  # a process sees one set of files; here they change between two looks
        return fingerprint(self.config(), Hashes(self.root / "hashes.json"))

    def closure(self) -> list[str]:
        fp.module_files.cache_clear()
        return [path.relative_to(self.root / "ebnerd_lib").as_posix() for path in stage_modules(self.config())]


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "ROOT", tmp_path)
    monkeypatch.setattr(fp, "ROOT", tmp_path)
    yield Project(tmp_path)
    fp.module_files.cache_clear()


def changes(project: Project, change: Callable[[], object]) -> bool:
    before = project.fingerprint()
    assert project.fingerprint() == before, "a second look sees the same"
    change()
    return project.fingerprint() != before


# Cells.


@pytest.mark.parametrize("place", range(len(CELLS)))
def test_any_cell_counts(project, place):
    kind, source = CELLS[place]
    edited = [*CELLS[:place], (kind, source + " # edited"), *CELLS[place + 1 :]]
    assert changes(project, lambda: project.cells(edited))


@pytest.mark.parametrize(
    "cells",
    [CELLS[:2], [*CELLS, ("markdown", "")], [CELLS[1], CELLS[0], CELLS[2]], [*CELLS[:2], ("markdown", "1 + 1")]],
    ids=["one less", "one more", "order", "kind"],
)
def test_the_list_of_cells_counts(project, cells):
    assert changes(project, lambda: project.cells(cells))


def test_moving_a_line_from_cell_to_cell_counts(project):
    split = [("code", "import math\n"), ("code", "1 + 1")]
    project.cells(split)
    assert changes(project, lambda: project.cells([("code", "import math\n1 + 1"), ("code", "")]))


def test_outputs_and_metadata_of_the_notebook_do_not_count(project):
    assert not changes(project, lambda: project.cells(CELLS, tags=["hidden"], kernel="python4"))


def test_source_as_one_text_is_the_same_as_in_lines(project):
    def join() -> None:
        content = json.loads(notebook_path("02_stage").read_text())
        for cell in content["cells"]:
            cell["source"] = "".join(cell["source"])
        notebook_path("02_stage").write_text(json.dumps(content, indent=1))

    assert not changes(project, join)


@pytest.mark.parametrize(
    "source", ["%%bash\nfor f in *; do echo $f; done", "files = !ls", "data?", "if True:\n    %time 1 + 1\n"]
)
def test_ipython_syntax_is_no_obstacle(project, source):
    project.cells([*CELLS, ("code", source)])
    assert project.closure() == IN_CLOSURE


# Parameters.


@pytest.mark.parametrize(("key", "value"), [("epochs", 4), ("rate", 0.2), ("reads", []), ("new", None)])
def test_any_parameter_counts(project, key, value):
    assert changes(project, lambda: project.parameters.update({key: value}))


def test_order_of_parameters_does_not_count(project):
    def backwards() -> None:
        project.parameters = dict(reversed(project.parameters.items()))

    assert not changes(project, backwards)


# Modules.


def test_closure_by_hand(project):
    assert project.closure() == IN_CLOSURE


@pytest.mark.parametrize("name", IN_CLOSURE)
def test_any_module_of_the_closure_counts(project, name):
    assert changes(project, lambda: project.write(f"ebnerd_lib/{name}", MODULES[name] + "# edited\n"))


@pytest.mark.parametrize("name", ["models/other.py", "plots.py", "brand_new.py"])
def test_modules_outside_the_closure_do_not_count(project, name):
    assert not changes(project, lambda: project.write(f"ebnerd_lib/{name}", "# edited\n"))


def test_a_new_import_brings_its_module_in(project):
    project.write("ebnerd_lib/data/table.py", "from ebnerd_lib import plots\n")
    assert "plots.py" in project.closure()
    assert changes(project, lambda: project.write("ebnerd_lib/plots.py", "# edited\n"))


def test_the_module_named_by_the_parameter_counts_and_no_other(project):
    project.parameters["module"] = "other"
    closure = project.closure()
    assert "models/other.py" in closure
    assert "models/mf.py" not in closure


def test_without_a_module_parameter_no_model_counts(project):
    del project.parameters["module"]
    assert [name for name in project.closure() if name.startswith("models/")] == []


# Inputs.


@pytest.mark.parametrize("name", ["articles", "train/behaviors", "validation/history"])
def test_bytes_of_the_bundle_count(project, name):
    assert changes(project, lambda: project.write(f"data/real/{name}.parquet", f"{name}, other"))


def test_bytes_of_the_same_length_count(project):
    assert changes(project, lambda: project.write("data/real/articles.parquet", "Articles"))


@pytest.mark.parametrize("name", ["generated.json", "contrastive_vector.parquet"])
def test_optional_files_of_the_bundle_count_once_they_exist(project, name):
    assert changes(project, lambda: project.write(f"data/real/{name}", "{}"))


def test_other_files_of_the_bundle_do_not_count(project):
    assert not changes(project, lambda: project.write("data/real/notes.txt", "x"))


def test_artifacts_read_count_but_their_manifest_does_not(project):
    folder = "outputs/test/artifacts/01_first"
    assert not changes(project, lambda: project.write(f"{folder}/manifest.json", '{"duration_seconds": 2}'))
    assert changes(project, lambda: project.write(f"{folder}/slates.parquet", "other slates"))
    assert changes(project, lambda: project.write(f"{folder}/more.parquet", "more"))
    project.parameters["reads"] = []
    assert not changes(project, lambda: project.write(f"{folder}/slates.parquet", "slates once more"))


def test_times_of_files_do_not_count(project):
    def touch() -> None:
        for path in project.root.rglob("*"):
            os.utime(path, (1, 1))

    assert not changes(project, touch)


def test_the_place_of_the_project_does_not_count(project, tmp_path, monkeypatch):
    before = project.fingerprint()
    other = tmp_path / "elsewhere"
    other.mkdir()
    monkeypatch.setattr(layout, "ROOT", other)
    monkeypatch.setattr(fp, "ROOT", other)
    assert Project(other).fingerprint() == before


def test_inputs_in_order(project):
    names = [path.relative_to(project.root).as_posix() for path in input_files(project.config())]
    assert names == [
        "data/real/articles.parquet", "data/real/train/behaviors.parquet", "data/real/train/history.parquet",
        "data/real/validation/behaviors.parquet", "data/real/validation/history.parquet",
        "outputs/test/artifacts/01_first/slates.parquet",
    ]  # fmt: skip


def test_an_incomplete_bundle_is_refused(project):
    (project.root / "data/real/articles.parquet").unlink()
    with pytest.raises(BundleError, match=r"1 files missing: articles\.parquet"):
        project.fingerprint()


# The store of sums.


def test_sums_are_those_of_sha256sum(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_sums_are_remembered_and_files_not_read_twice(project, monkeypatch):
    file = project.root / "data/real/articles.parquet"
    hashes = Hashes(project.root / "logs" / "hashes.json")
    first = hashes.of(file)
    hashes.save()
    assert list((project.root / "logs").iterdir()) == [project.root / "logs" / "hashes.json"], "no temporary is left"
    reads = []
    monkeypatch.setattr(fp, "sha256", lambda path: reads.append(path) or sha256(path))
    again = Hashes(project.root / "logs" / "hashes.json")
    assert (again.of(file), reads) == (first, [])
    file.write_text("changed")
    assert (again.of(file), reads) == (sha256(file), [file])


@pytest.mark.parametrize("change", ["size", "time"])
def test_a_changed_file_is_read_again(project, change):
    file = project.root / "data/real/articles.parquet"
    os.utime(file, ns=(10**18, 10**18))
    hashes = Hashes(project.root / "hashes.json")
    before = hashes.of(file)
    file.write_text("Articles" if change == "time" else "articles!")
    os.utime(file, ns=(10**18, 10**18 + (change == "time")))
    assert hashes.of(file) == sha256(file) != before


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"\xff\xfe", b"[]", b"null", b"3", b'"text"', b'{"data/real/articles.parquet": null}',
        b'{"data/real/articles.parquet": 7}', b'{"data/real/articles.parquet": []}',
        b'{"data/real/articles.parquet": {"a": 1}}',
    ],
)  # fmt: skip
def test_a_corrupt_store_only_costs_time(project, content):
    store, file = project.root / "hashes.json", project.root / "data/real/articles.parquet"
    store.write_bytes(content)
    hashes = Hashes(store)
    assert hashes.of(file) == sha256(file)
    hashes.save()
    assert Hashes(store).of(file) == sha256(file)


def test_an_entry_cut_short_only_costs_time(project):
    store, file = project.root / "hashes.json", project.root / "data/real/articles.parquet"
    status = file.stat()
    store.write_text(json.dumps({"data/real/articles.parquet": [status.st_size, status.st_mtime_ns]}))
    assert Hashes(store).of(file) == sha256(file)


def test_a_folder_in_the_place_of_the_store_only_costs_time(project):
    (project.root / "hashes.json").mkdir()
    file = project.root / "data/real/articles.parquet"
    assert Hashes(project.root / "hashes.json").of(file) == sha256(file)


# The repository's own notebooks, with the standard library's finder of modules as oracle: it reads bytecode.


@pytest.mark.parametrize("stage", sorted(path.stem for path in (REPO / "notebooks").glob("*.ipynb")))
def test_the_closure_of_a_notebook_is_what_python_finds(stage, tmp_path):
    config = load_config("smoke", stage)
    lines = [line for cell in code_cells(notebook_path(stage)) for line in cell["source"].splitlines()]
    imports = [line.strip() for line in lines if line.lstrip().startswith(("import ", "from "))]
    if "module" in config.parameters:
        imports.append(f"import ebnerd_lib.models.{config.parameters['module']}")
    (tmp_path / "script.py").write_text("\n".join(imports))
    finder = ModuleFinder(path=[str(REPO)])
    finder.run_script(str(tmp_path / "script.py"))
    found = {
        Path(module.__file__).resolve() for name, module in finder.modules.items() if name.startswith("ebnerd_lib")
    }
    assert len(found) > 10
    assert set(stage_modules(config)) == found


def test_checking_a_stage_loads_nothing_heavy():
    code = "import sys, ebnerd_lib.pipeline.fingerprint; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"numpy", "pandas", "pyarrow", "torch", "papermill"} & set(loaded)
