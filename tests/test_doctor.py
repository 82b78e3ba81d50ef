"""The doctor: what it tells of a sound project, and of ones that are broken in the ways that it looks for."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ebnerd_lib.data import download, transfer
from ebnerd_lib.data.layout import VECTORS
from ebnerd_lib.pipeline.doctor import bundles, machine
from ebnerd_lib.pipeline.layout import ROOT
from ebnerd_lib.pipeline.runner import DETERMINISM
from ebnerd_lib.sample import generate_test

ASK = """
import json, sys
from dataclasses import asdict
from ebnerd_lib.pipeline.doctor import bundles, environment, machine, project
print(json.dumps([asdict(finding) for finding in eval(sys.argv[1])]))
"""
HOLD = """
import sys, time
from pathlib import Path
from ebnerd_lib.pipeline import lock
lock.acquire(Path(sys.argv[1]), "a test")
print("held", flush=True)
time.sleep(60)
"""


class Project:
    """A copy of the project with the bundle of the profile smoke, to break."""

    def __init__(self, root: Path, smoke_bundle: Path) -> None:
        self.root = root
        for name in ("ebnerd_lib", "notebooks", "params"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "requirements.lock", "Makefile"):
            shutil.copy(ROOT / name, root / name)
        shutil.copytree(smoke_bundle, root / "data" / "smoke")
        (root / "outputs").mkdir()
        self.environment = {**os.environ, **DETERMINISM, "PYTHONPATH": str(root)}
        self.environment.pop("OMP_NUM_THREADS", None)

    def ask(self, call: str, before: tuple[str, ...] = (), **variables: str) -> list[dict[str, str]]:
        """Make one check in a process of its own and return what it found."""
        words = [*before, sys.executable, "-c", ASK, call]
        environment = {**self.environment, **variables}
        done = subprocess.run(words, cwd=self.root, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def one(self, call: str, state: str, text: str, remedy: str = "", **options) -> dict[str, str]:
        """Make a check that finds one thing in a state, with a text and a remedy that hold some words."""
        (found,) = self.ask(call, **options)
        assert found["state"] == state and text in found["text"] and remedy in found["remedy"], found
        assert state == "ok" or found["remedy"], found
        return found

    def doctor(self, *words: str, profile: str = "smoke", **variables: str) -> tuple[int, str]:
        """Run the verb. Returns its exit code and what it printed; an error is neither."""
        done = subprocess.run(
            [sys.executable, *words, "-m", "ebnerd_lib", "doctor", "--profile", profile],
            cwd=self.root, env={**self.environment, **variables}, capture_output=True, text=True,
        )  # fmt: skip
        assert not done.stderr, done.stderr
        return done.returncode, done.stdout


@pytest.fixture
def project(tmp_path, smoke_bundle) -> Project:
    return Project(tmp_path / "p", smoke_bundle)


def lines(told: str, state: str) -> list[str]:
    return re.findall(rf"(?m)^  {state} +(.*)$", told)


def test_a_sound_project_is_told_plainly_and_without_personal_paths(project):
    code, told = project.doctor(CUDA_VISIBLE_DEVICES="")
    assert code == 0 and not lines(told, "wrong"), told
    assert told.rstrip().splitlines()[-1].startswith("nothing stops `make run-all PROFILE=smoke`")
    assert "\x1b" not in told and not re.search(r"(^|[\s(])/\w", told), told
    assert str(Path.home()) not in told and project.root.parent.name not in told
    names = {re.split(r"\s{2,}|\s(?=\d)", line)[0].strip() for line in lines(told, "(?:ok|warn)")}
    assert {
        "python", "packages", "determinism", "kernel", "threads", "memory", "disk", "parameters", "writing",
        "outputs", "locks", "git", "data/smoke", "profile data", "other profiles", "browser", "imports", "torch",
    } <= names  # fmt: skip
    rows = pq.ParquetFile(project.root / "data/smoke/train/behaviors.parquet").metadata.num_rows
    assert f"whole, generated, size smoke, seed 0; impressions: train {rows:,}" in told
    assert "ebnerd_demo (`make data BUNDLE=ebnerd_demo`)" in told
    assert "`accelerator: auto` takes" in told


def test_make_asks_the_doctor_even_where_there_is_no_environment(project):
    environment = {key: value for key, value in project.environment.items() if key not in DETERMINISM}
    for words in ([f"PYTHON={sys.executable}"], []):  # without one, and no .venv: the system's Python
        done = subprocess.run(
            ["make", "doctor", "PROFILE=smoke", *words],
            cwd=project.root,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert "doctor: what there is" in done.stdout and "Traceback" not in done.stderr + done.stdout, done.stderr
        assert "determinism     PYTHONHASHSEED" in done.stdout or "could not be checked" in done.stdout
        assert not (project.root / ".venv").exists()


def test_all_that_is_broken_is_told_at_once_with_its_remedy(project):
    (project.root / "data/smoke/train/history.parquet").unlink()
    lock = project.root / "requirements.lock"
    lock.write_text(re.sub(r"(?m)^numpy==.*$", "numpy==1.0.0", lock.read_text()))
    (project.root / "params/smoke/03_train_mlp.yaml").write_text("epoch: 3\n")
    shutil.rmtree(project.root / "outputs")
    (project.root / "outputs").write_text("")
    variables = {"MKL_CBWR": "COMPATIBLE", "OMP_NUM_THREADS": "many"}
    code, told = project.doctor(**variables)
    assert code == 1
    wrong, warn = "\n".join(lines(told, "wrong")), "\n".join(lines(told, "warn"))
    assert "data/smoke      not whole: 1 files missing: train/history.parquet" in wrong
    assert "→ rm -r data/smoke; `make run-all` generates it again" in told
    assert "params/smoke/03_train_mlp.yaml" in wrong and "did you mean 'epochs'?" in told
    assert "OMP_NUM_THREADS is 'many'" in wrong and "outputs (" in wrong
    assert "numpy" in warn and "(locked: 1.0.0)" in warn and "1 of 3 not set" in warn
    assert "export MKL_CBWR=AVX2,STRICT" in told
    assert f"{len(lines(told, 'wrong'))} wrong: `make run-all PROFILE=smoke` would not get through" in told


def test_a_python_without_any_package_is_told(project):
    code, told = project.doctor("-S")
    assert code == 1, told
    assert re.search(r"packages +\d+ of \d+ missing: ", told)
    assert "data/smoke      all files are there; not opened, since pyarrow is missing" in told
    assert "Traceback" not in told


def outdated() -> list[Path]:
    """Pythons of this machine that the project does not run on."""
    found = [*sorted(Path.home().glob(".pyenv/versions/3.*/bin/python")), Path("/usr/bin/python3")]
    wanted = "import sys; sys.exit((3, 9) > sys.version_info or (3, 11) <= sys.version_info[:2] <= (3, 13))"
    return [path for path in found if path.exists() and not subprocess.run([path, "-c", wanted]).returncode]


def test_another_python_is_told(project):
    pythons = outdated()
    if not pythons:
        pytest.skip("this machine has no other Python")
    for python in pythons:
        words = [python, "-m", "ebnerd_lib", "doctor", "--profile", "smoke"]
        done = subprocess.run(words, cwd=project.root, env=project.environment, capture_output=True, text=True)
        assert done.returncode == 1 and not done.stderr, done.stderr
        assert "install one of 3.11, 3.12, 3.13, or name one: make … PYTHON=/path/to/python" in done.stdout


def test_an_unknown_profile_is_told(project):
    code, told = project.doctor(profile="smok")
    assert code == 1 and "params/smok: no such profile" in told and "Use one of" in told


# ----- the environment


def test_missing_packages_stop_a_run_where_it_needs_them(project):
    lock, declared = project.root / "requirements.lock", project.root / "pyproject.toml"
    lock.write_text(lock.read_text() + "nowhere-lib==1.0\nnever==2 ; sys_platform == 'nothing'\n")
    found = project.one("environment.check_packages()", "warn", "1 of ", "pip install -r requirements.lock")
    assert found["text"].endswith(" missing that only tests and checks need: nowhere-lib")
    declared.write_text(declared.read_text().replace('"rich>=14.0",', '"rich>=14.0",\n    "Nowhere_Lib",'))
    project.one("environment.check_packages()", "wrong", "missing: nowhere-lib", "pip install -r requirements.lock")


def test_the_local_part_of_a_version_is_no_other_version(project):
    lock = project.root / "requirements.lock"
    lock.write_text(re.sub(r"(?m)^(torch==[\d.]+).*$", r"\1+cu999", lock.read_text()))
    project.one("environment.check_packages()", "ok", "as in requirements.lock")
    lock.unlink()
    project.one("environment.check_packages()", "warn", "no requirements.lock", "git")


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("raise OSError('libtorch.so: cannot open')", "OSError: libtorch.so: cannot open"),
        ("import os; os.abort()", "ended with code -6"),
    ],
)
def test_packages_that_cannot_be_loaded_are_told(project, code, told):
    for name in ("torch", "numba"):
        (project.root / f"{name}.py").write_text(code)
    call = "environment.check_torch(environment.start_probes()['torch'])"
    project.one(call, "wrong", f"cannot be loaded: {told}", "pip install")
    call = "environment.check_imports(environment.start_probes()['imports'])"
    project.one(call, "wrong", f"cannot be loaded: numba ({told}", "pip install")


def test_a_driver_that_torch_does_not_use_is_told(project):
    program = project.root / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (project.root / "torch.py").write_text(
        "class Off:\n    is_available = staticmethod(lambda: False)\n"
        "class cuda(Off): pass\nclass version: cuda = None\nclass backends: mps = Off\n"
        "__version__ = '2.13.0+cpu'\nget_num_threads = lambda: 2\n"
    )
    call = "environment.check_torch(environment.start_probes()['torch'])"
    project.one(call, "ok", "2.13.0+cpu, built for CPU; `accelerator: auto` takes cpu; 2 threads")
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    assert project.ask(call, PATH=path)[0]["state"] == "warn"


def test_kernels_that_start_no_python_or_another_are_told(project, tmp_path):
    spec = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    variables = {"JUPYTER_PATH": str(tmp_path / "jupyter")}
    call = "environment.check_kernel()"
    project.one(call, "ok", "starts this Python")
    for program, state, text in [
        (str(tmp_path / "gone" / "python"), "wrong", "a Python that is no more"),
        ("/bin/sh", "warn", "another Python than this one"),
        (sys.executable, "ok", "starts this Python"),
        ("python", "ok", "starts this Python"),
    ]:
        spec.write_text(json.dumps({"argv": [program, "-m", "ipykernel_launcher"], "display_name": "x"}))
        (found,) = project.ask(call, **variables)
        assert found["state"] == state and text in found["text"] and str(tmp_path) not in found["text"]


def test_variables_that_are_not_set_are_told(project):
    call = "environment.check_variables()"
    project.one(call, "ok", "are set")
    found = project.ask(call, PYTHONHASHSEED="1")
    assert found[0]["state"] == "warn" and found[0]["remedy"].endswith("export PYTHONHASHSEED=0")


# ----- the machine


def test_threads_beyond_the_cores_are_told(project):
    call = "machine.check_threads()"
    assert [project.ask(call, OMP_NUM_THREADS=given)[0]["state"] for given in ("1", "5000", "0", "two")] == [
        "ok", "warn", "wrong", "wrong",
    ]  # fmt: skip


def test_what_a_profile_needs_follows_from_the_rows_of_its_bundle(project):
    assert bundles.rows_of("data/nowhere") is None
    assert [machine.size_of("x", rows) for rows in (2_000, 24_724, 232_887, 12_063_890)] == list(machine.NEEDS)
    found = project.ask("machine.check_memory('smoke', 'smoke')")[0]
    assert "of size smoke takes up to 2.0 GB" in found["text"]


def test_a_small_disk_is_told(project):
    outputs = project.root / "outputs"
    words = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(outputs)]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk, and not everywhere")
    try:
        found = project.ask("machine.check_disk('smoke', 'smoke')")
        told = {line["text"].split(":")[0]: line for line in found}
        assert told["outputs/"]["state"] == "wrong" and "8 MB free" in told["outputs/"]["text"]
        assert "free space" in told["outputs/"]["remedy"] and told["data/, TMPDIR"]["state"] == "ok"
        subprocess.run(["mount", "-o", "remount,size=200m", str(outputs)], check=True)
        found = project.ask("machine.check_disk('smoke', 'smoke')")
        assert {line["state"] for line in found} == {"ok"}
    finally:
        subprocess.run(["umount", "--lazy", str(outputs)], check=True)


# ----- the project


def test_outputs_that_cannot_be_written_are_told(project):
    call = "project.check_writing('smoke')"
    project.one(call, "ok", "can be written")
    bound: tuple[str, ...] = ()
    if os.geteuid() == 0:  # permissions do not bind root, unless it lays down what lifts it above them
        bound = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
        if shutil.which("setpriv") is None or subprocess.run([*bound, "true"], capture_output=True).returncode:
            pytest.skip("permissions do not bind root here")
    logs = project.root / "outputs" / "smoke" / "logs"
    logs.mkdir(parents=True)
    logs.chmod(0o555)
    try:
        found = project.one(call, "wrong", "outputs/smoke/logs (Permission denied)", "chmod", before=bound)
        assert found["text"].count("(") == 1
    finally:
        logs.chmod(0o755)
    project.one(call, "ok", "can be written", before=bound)


def test_git_without_the_filter_is_told(project):
    call = "project.check_git()"
    project.one(call, "ok", "no repository", GIT_CEILING_DIRECTORIES=str(project.root.parent))
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "Makefile"], [*author, "commit", "-qm", "x"]):
        subprocess.run(["git", *words], cwd=project.root, check=True)
    without = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    project.one(call, "warn", ", with changes; outputs of notebooks", "make setup-git", **without)
    subprocess.run(["git", "config", "filter.nbstripout.clean", "nbstripout"], cwd=project.root, check=True)
    project.one(call, "ok", "kept out of commits", **without)
    project.one(call, "ok", "no commit", PATH=str(project.root))


def test_how_far_the_profile_is_stands_in_a_line(project):
    call = "project.check_outputs('smoke')"
    project.one(call, "ok", "nothing of smoke has run yet: make run-all PROFILE=smoke")
    outputs = project.root / "outputs" / "smoke"
    for stage, executed in (("00_audit", True), ("01_preprocess", True), ("02_train_mf", False)):
        (outputs / "artifacts" / stage).mkdir(parents=True)
        (outputs / "artifacts" / stage / "manifest.json").write_text("{}")
        (outputs / "notebooks").mkdir(exist_ok=True)
        if executed:
            (outputs / "notebooks" / f"{stage}.ipynb").write_text("{}")
    project.one(call, "ok", "2 of 7 stages complete, run by hand or outdated: 02_train_mf; make run-all")
    (outputs / "logs" / "03_train_mlp").mkdir(parents=True)
    (outputs / "logs" / "03_train_mlp" / "failure.json").write_text('{"message": "x"}')
    project.one(call, "warn", "failed: 03_train_mlp", "outputs/smoke/index.html")


def test_a_lock_that_is_held_is_told_with_its_holder(project):
    call = "project.check_locks('smoke')"
    project.one(call, "ok", "none is held")
    file = project.root / "outputs" / "smoke" / "logs" / "run.lock"
    words = [sys.executable, "-c", HOLD, str(file)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=project.environment) as process:
        assert process.stdout.readline() == "held\n"
        text = f"outputs/smoke/logs/run.lock: a test, pid {process.pid} since"
        project.one(call, "wrong", text, f"kill {process.pid}")
        project.one("project.check_locks('sample')", "ok", text)  # another profile's is no hindrance
        process.send_signal(signal.SIGKILL)
    project.one(call, "ok", "none is held")  # the file still names the holder, who is no more
    assert "a test" in file.read_text()


def test_a_browser_that_is_missing_is_no_fault(project, tmp_path):
    call = "project.check_browser()"
    project.one(call, "ok", "tests of pages are skipped", "chromium", PATH=str(tmp_path))
    (tmp_path / "chromium").write_text("#!/bin/sh\n")
    (tmp_path / "chromium").chmod(0o755)
    assert not project.one(call, "ok", "Chromium is there", PATH=str(tmp_path))["remedy"]


# ----- the data


def test_bundles_are_told_apart_and_those_that_are_not_whole_named(project, smoke_bundle):
    data = project.root / "data"
    shutil.copytree(smoke_bundle, data / "ebnerd_demo")
    (data / "ebnerd_demo" / "generated.json").unlink()
    (data / "ebnerd_demo" / VECTORS).unlink()
    (data / "ebnerd_demo" / download.RECORD).write_text("{}")
    generate_test(data / "ebnerd_testset", seed=0, size="smoke")
    shutil.copytree(smoke_bundle, data / "broken")
    (data / "broken" / "validation" / "behaviors.parquet").write_bytes(b"PAR1")
    shutil.copytree(smoke_bundle, data / "odd")
    pq.write_table(pa.table({"article_id": [1]}), data / "odd" / "articles.parquet")
    (data / "ebnerd_vectors").mkdir()
    shutil.copy(smoke_bundle / VECTORS, data / "ebnerd_vectors")
    (data / "notes").mkdir()
    found = {line["name"]: line for line in project.ask("bundles.check_data({'data/smoke', 'data/odd'})")}
    assert found["data/smoke"]["state"] == "ok" and "with article vectors" in found["data/smoke"]["text"]
    real = found["data/ebnerd_demo"]
    assert real["state"] == "warn" and "other numbers of rows than published" in real["text"]
    assert "fetched with `make data`" in real["text"] and "without article vectors" in real["text"]
    assert (
        found["data/ebnerd_testset"]["state"] == "ok" and "impressions: test " in found["data/ebnerd_testset"]["text"]
    )
    broken = found["data/broken"]
    assert broken["state"] == "warn" and "validation/behaviors.parquet: not a readable parquet" in broken["text"]
    assert found["data/odd"]["state"] == "wrong" and "20 of 21 columns missing" in found["data/odd"]["text"]
    assert "article vectors, for bundles to share" in found["data/ebnerd_vectors"]["text"]
    assert found["data/notes"]["state"] == "ok" and "no bundle, left alone" in found["data/notes"]["text"]


def test_a_profile_without_its_data_is_told_how_to_get_them(project):
    def told(profile: str) -> dict[str, str]:
        return project.ask(f"bundles.check_profiles({profile!r})")[0]

    assert told("smoke")["state"] == "ok"
    assert (
        told("ebnerd_small")["state"] == "wrong" and told("ebnerd_small")["remedy"] == "make data BUNDLE=ebnerd_small"
    )
    assert told("sample")["state"] == "ok" and "which `make run-all` generates" in told("sample")["text"]
    (project.root / "params/smoke/01_preprocess.yaml").write_text('bundle: "data/mine"\n')
    found = told("smoke")
    assert found["state"] == "wrong" and "change `bundle` in params/smoke" in found["remedy"]


def test_a_download_that_was_cut_is_told(project):
    work = download.work_folder(project.root / "data" / "ebnerd_large")
    work.mkdir()
    (work / "archive").write_bytes(bytes(2_000_000))
    version = {"url": "http://a/b.zip", "etag": None, "modified": None, "size": 3_000_000_000}
    transfer.version_file(work / "archive").write_text(json.dumps(version))
    (found,) = [line for line in project.ask("bundles.check_data(set())") if line["name"] == "data/ebnerd_large"]
    assert found["state"] == "warn" and found["remedy"] == "make data BUNDLE=ebnerd_large"
    assert found["text"] == "a download that was cut after 2 MB of 3.0 GB"


def test_what_make_generates_is_what_the_doctor_says():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    stamps = set(re.findall(r"(?m)^STAMP_\w+ := data/(\w+)/generated\.json$", makefile))
    assert stamps == set(bundles.GENERATED)
