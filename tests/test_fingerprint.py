"""What makes a stage stale, and what does not."""

import json
import os
from collections.abc import Callable
from modulefinder import ModuleFinder
from pathlib import Path

import pytest
from runs import copy_of

from ebnerd_lib.errors import BundleError, ConfigError
from ebnerd_lib.pipeline import paths
from ebnerd_lib.pipeline import stale as fp
from ebnerd_lib.pipeline.params import base_config, code_cells, load_profile, with_values
from ebnerd_lib.pipeline.paths import notebook_path
from ebnerd_lib.pipeline.stale import Hashes, fingerprint, input_files, sha256, stage_modules

REPO = paths.ROOT
BUNDLE = ("articles", *(f"{week}/{table}" for week in ("train", "validation") for table in ("behaviors", "history")))
ARTIFACTS = "outputs/smoke/artifacts/01_preprocess"


class Project:
    """A copy of the project with a bundle and the artifacts of 01, and one stage of it."""

    def __init__(self, root: Path) -> None:
        self.root = copy_of(REPO, root)
        for name in (*(f"data/smoke/{table}.parquet" for table in BUNDLE), f"{ARTIFACTS}/slates.parquet"):
            self.write(name, name)
        self.stage = load_profile("smoke")["03_train_mlp"]
        self.notebook = notebook_path(self.stage.stage)

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def cells(self, change: Callable[[list[dict]], object], **options: object) -> None:
        content = json.loads(self.notebook.read_text())
        change(content["cells"])
        self.notebook.write_text(json.dumps(content, **options))

    def changed(self, change: Callable[[], object]) -> bool:
        """Whether a change makes the stage stale."""
        before = self.fingerprint()
        assert self.fingerprint() == before, "a second look sees the same"
        change()
        return self.fingerprint() != before

    def fingerprint(self) -> str:
        fp.module_files.cache_clear()  # a process sees one set of files; here they change between two looks
        return fingerprint(self.stage, Hashes(self.root / "hashes.json"))


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(fp, "ROOT", tmp_path)
    yield Project(tmp_path)
    fp.module_files.cache_clear()


def test_any_cell_counts(project):
    for place in range(3):
        assert project.changed(lambda place=place: project.cells(lambda cells: cells[place]["source"].append("# more")))
    for change in (list.reverse, list.pop, lambda cells: cells[0].update(cell_type="raw")):
        assert project.changed(lambda change=change: project.cells(change)), "number, order and kind"


def test_outputs_and_metadata_and_the_way_a_notebook_is_written_do_not_count(project):
    def run(cells: list[dict]) -> None:
        for cell in cells:
            cell.update(metadata={"tags": ["hidden"]}, outputs=["one"], execution_count=3)
            cell["source"] = "".join(cell["source"])

    assert not project.changed(lambda: project.cells(run, indent=7))


def test_any_parameter_counts_and_their_order_does_not(project):
    own = project.stage.parameters
    for key, value in (("epochs", 400), ("learning_rate", 0.2), ("hidden", []), ("new", None)):
        assert project.changed(lambda key=key, value=value: own.update({key: value}))
    assert not project.changed(lambda: own.update(mlflow="http://127.0.0.1")), "no result depends on it"
    backwards = dict(reversed(own.items()))
    assert not project.changed(lambda: (own.clear(), own.update(backwards)))


def test_modules_that_are_imported_count_with_and_without_ipython_syntax_and_others_do_not(project):
    modules = stage_modules(project.stage)
    for source in ("%%bash\nfor f in *; do echo $f; done", "files = !ls", "data?", "if True:\n    %time 1 + 1\n"):
        project.cells(lambda cells, source=source: cells.append({"cell_type": "code", "source": [source]}))
        assert stage_modules(project.stage) == modules
    for source in ("%%time\nfrom ebnerd_lib.models import gru", "from ebnerd_lib.models import gru  # why not?"):
        project.cells(lambda cells, source=source: cells.append({"cell_type": "code", "source": [source]}))
        assert {file.stem for file in set(stage_modules(project.stage)) - set(modules)} >= {"gru"}
        project.cells(list.pop)
    counting = ("__init__", "errors", "data/__init__", "data/slates", "models/mlp", "training/fit", "plots")
    for name in (*counting, "sample/pools", "pipeline/doctor", "models/nrms", "explore/app", "brand_new"):
        file = project.root / "ebnerd_lib" / f"{name}.py"
        text = (file.read_text() if file.exists() else "") + "# edited\n"
        assert project.changed(lambda file=file, text=text: file.write_text(text)) is (name in counting), name
    project.write("ebnerd_lib/models/mlp.py", "from ebnerd_lib import brand_new\n")
    assert project.changed(lambda: project.write("ebnerd_lib/brand_new.py", "")), "a new import"


def test_the_module_named_by_the_parameter_counts_and_no_other(project):
    nrms = base_config("news", "03_train_news.nrms")
    naml = with_values(nrms, {"model": "naml"}, "here")
    only = [{file.stem for file in stage_modules(config)} for config in (nrms, naml)]
    assert only[0] - only[1] == {"nrms"} and only[1] - only[0] == {"naml"}
    assert project.root / "ebnerd_lib/models/mf.py" in stage_modules(base_config("smoke", "02_train_mf.ids"))
    with pytest.raises(ConfigError, match="'nrms'"):
        stage_modules(with_values(nrms, {"model": "nrmz"}, "here"))


def test_a_search_is_stale_once_the_stage_that_it_searches_has_changed(project):
    search = with_values(base_config("smoke", "07_tune"), {"training_stage": "03_train_mlp", "space": {"a": [1]}}, "")
    before = fingerprint(search, Hashes(project.root / "none.json"))
    file = paths.parameter_file("smoke", "03_train_mlp")
    file.write_text(file.read_text() + "dropout: 0.3\n")
    assert fingerprint(search, Hashes(project.root / "none.json")) != before


def test_bytes_of_the_bundle_count_and_times_and_other_files_do_not(project):
    def touch() -> None:
        for path in project.root.rglob("*"):
            os.utime(path, (1, 1))

    project.stage.parameters["bundle"] = "data/smoke"
    for name in ("articles.parquet", "train/behaviors.parquet", "validation/history.parquet", "generated.json"):
        assert project.changed(lambda name=name: project.write(f"data/smoke/{name}", f"{name}, other"))
    assert project.changed(lambda: project.write("data/smoke/articles.parquet", "Articles.parquet, other")), "same size"
    assert not project.changed(lambda: project.write("data/smoke/notes.txt", "x"))
    assert not project.changed(touch)
    (project.root / "data/smoke/articles.parquet").unlink()
    with pytest.raises(BundleError, match=r"articles\.parquet"):
        project.fingerprint()


def test_artifacts_read_count_but_neither_their_manifest_nor_those_of_other_stages(project):
    for name, counts in (("slates.parquet", True), ("more.parquet", True), ("manifest.json", False)):
        assert project.changed(lambda name=name: project.write(f"{ARTIFACTS}/{name}", "other")) is counts
    assert not project.changed(lambda: project.write(f"{ARTIFACTS}.half/slates.parquet", "other"))


def test_checksums_are_remembered_until_size_or_time_of_a_file_changes(project, monkeypatch):
    store, file = project.root / "logs" / "hashes.json", project.write("data/smoke/articles.parquet", "abc")
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


def test_a_corrupt_store_only_costs_time(project):
    store, file = project.root / "hashes.json", project.root / "data/smoke/articles.parquet"
    for content in ("", "{", "\xff", "null"):
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
    hashes = Hashes(project.root / "hashes.json")
    inputs = {paths.relative(file): sha256(file) for file in input_files(project.stage)}
    own = {"fingerprint": project.fingerprint(), "parameters": dict(project.stage.parameters), "inputs": inputs}
    assert fp.changes(project.stage, own, hashes) == ""
    project.cells(list.pop)
    assert "notebook" in fp.changes(project.stage, own, hashes)
    project.write(f"{ARTIFACTS}/slates.parquet", "other slates")
    assert fp.changes(project.stage, own, hashes).endswith(f"inputs changed: {ARTIFACTS}/slates.parquet")
    project.stage.parameters["epochs"] = 400
    assert fp.changes(project.stage, own, hashes).endswith(", now 400")
