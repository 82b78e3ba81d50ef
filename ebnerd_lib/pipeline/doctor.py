"""Say what is there, what is wrong for a profile, and the remedy; starts on any Python from 3.10, without packages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from ebnerd_lib.errors import EbnerdError, first_line
from ebnerd_lib.pipeline import paths

OK, WARN, WRONG = "ok", "warn", "wrong"
"""Fine; worth a look; stops `make run-all`."""
NEEDS = {"smoke": (2, 0.1, 0.1), "demo": (3, 0.5, 0.5), "small": (4, 3, 2), "large": (8, 40, 10)}
"""GB of memory, outputs and temporary files that a run takes at most, by the size of the bundle."""
COMPILED = ("numpy", "pandas", "pyarrow", "numba", "torch")
"""Packages with machine code, in the order in which their import is tried."""
_PROBE = """
import importlib, sys
for name in sys.argv[1:]:
    print(name, flush=True)
    importlib.import_module(name)
import torch
cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
print(torch.__version__, torch.version.cuda or "none", "mps" if mps else "cuda" if cuda else "cpu", sep="|")
"""


class Finding(NamedTuple):
    """What a check found about one thing; the remedy is shown unless the state is ``OK``."""

    state: str
    name: str
    text: str
    remedy: str = ""


def doctor(profile: str) -> int:
    """Print what is there and what is wrong for a profile. Returns 1 if something stops `make run-all`, else 0."""
    states = []
    for state, name, text, remedy in findings(profile):
        states.append(state)
        print(f"{state:<5}  {_public(name):<16}  {_public(text)}", flush=True)
        if remedy and state != OK:
            print(f"{'':23}→ {_public(remedy)}")
    can = "cannot run until what is wrong is fixed" if WRONG in states else "can run"
    print(f"\n{states.count(WRONG)} wrong, {states.count(WARN)} worth a look: `make run-all PROFILE={profile}` {can}.")
    return 1 if WRONG in states else 0


def findings(profile: str) -> Iterator[Finding]:
    """Yield what the checks find; each imports what it needs, so that one that cannot run says so and others go on."""
    for check in (
        check_python, check_packages, check_imports, check_machine, check_profile, check_outputs, check_data,
    ):  # fmt: skip
        try:
            yield from check(profile)
        except Exception as error:
            text = f"could not be checked ({type(error).__name__}: {first_line(error)})"
            state, remedy = _reinstall() if isinstance(error, ImportError) else (WARN, "")
            yield Finding(state, check.__name__.removeprefix("check_"), text, remedy)


def check_python(profile: str) -> Iterator[Finding]:
    """Compare the version of Python with pyproject.toml."""
    ((first, end),) = re.findall(r'^requires-python = ">=3\.(\d+),<3\.(\d+)"', _read("pyproject.toml"), re.MULTILINE)
    state = OK if (3, int(first)) <= sys.version_info[:2] < (3, int(end)) else WRONG
    remedy = f"install Python 3.{first} to 3.{int(end) - 1}, or name one: make run-all PYTHON=/path/to/python"
    yield Finding(state, "python", f"{sys.version.split()[0]} on {sys.platform}, {os.cpu_count()} cores", remedy)


def check_packages(profile: str) -> Iterator[Finding]:
    """Compare the installed packages with requirements.lock; those that pyproject.toml declares must be there."""
    from packaging.markers import Marker

    found = reversed([*metadata.distributions()])  # of two versions the first on the path counts
    installed = {re.sub("[-_.]+", "-", each.metadata["Name"]).lower(): each.version.split("+")[0] for each in found}
    (declared,) = re.findall(r"^dependencies = \[(.*?)^\]", _read("pyproject.toml"), re.MULTILINE | re.DOTALL)
    pins = re.findall(r"^([\w-]+)==([^\s+]+)\S*(?: ; (.+))?$", _read("requirements.lock"), re.MULTILINE)
    locked = {name: version for name, version, marker in pins if not marker or Marker(marker).evaluate()}
    others = [f"{name} {installed.get(name, 'missing')}" for name in locked if installed.get(name) != locked[name]]
    state, remedy = _reinstall()
    if set(re.findall(r'"([\w-]+)', declared)) <= set(installed):
        state = WARN if others else OK
    text = f"{len(others)} of {len(locked)} not as in requirements.lock, so results may differ: {', '.join(others)}"
    text = textwrap.shorten(text, 150, placeholder=" …") if others else f"all {len(locked)} as in requirements.lock"
    yield Finding(state, "packages", text, remedy)


def check_imports(profile: str) -> Iterator[Finding]:
    """Import packages in a process of their own, since a broken build may crash it; say what torch runs on."""
    done = subprocess.run([sys.executable, "-c", _PROBE, *COMPILED], capture_output=True, text=True, timeout=300)
    lines = done.stdout.splitlines()
    if done.returncode:
        fault = (done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1]
        state, remedy = _reinstall()
        yield Finding(state, "imports", f"{lines[-1]} cannot be loaded ({fault})", remedy)
        return
    yield Finding(OK, "imports", f"{', '.join(COMPILED)} can be loaded")
    version, cuda, taken = lines[-1].split("|")
    state = WARN if taken == "cpu" and shutil.which("nvidia-smi") else OK
    remedy = "the NVIDIA driver is not used: see that `nvidia-smi` runs, and install torch's CUDA build"
    yield Finding(state, "torch", f"{version}, CUDA {cuda}; `accelerator: auto` takes {taken}", remedy)


def check_machine(profile: str) -> Iterator[Finding]:
    """Compare free memory and disk with what a run takes beyond the outputs that are there already."""
    import psutil

    size = next((size for size in NEEDS for bundle in _bundles(profile) if bundle.endswith(size)), "demo")
    memory, outputs, temporary = NEEDS[size]
    free = psutil.virtual_memory().available / 1e9
    remedy = f"close other programs, or run one stage at a time: make run-all PROFILE={profile} JOBS=1"
    text = f"{free:.1f} GB free, size {size} takes up to {memory} GB"
    yield Finding(OK if free >= memory else WARN, "memory", text, remedy)
    there = sum(file.stat().st_size for file in (paths.ROOT / "outputs" / profile).rglob("*") if file.is_file()) / 1e9
    place = paths.ROOT / "outputs" if (paths.ROOT / "outputs").is_dir() else paths.ROOT
    disks = ("outputs/", place, max(outputs - there, 0)), ("TMPDIR", tempfile.gettempdir(), temporary)
    for name, folder, needed in disks:
        free = shutil.disk_usage(folder).free / 1e9
        text = f"{free:.1f} GB free in {name}, size {size} takes up to {needed:.1f} GB more"
        yield Finding(OK if free >= needed else WRONG, "disk", text, f"free space, or move {name} to a larger disk")


def check_profile(profile: str) -> Iterator[Finding]:
    """Check the profile's parameters; say which of its stages are complete, failed or still to run."""
    from ebnerd_lib.pipeline.params import load_profile
    from ebnerd_lib.pipeline.runs import read_runs
    from ebnerd_lib.pipeline.stale import order

    try:
        configs = load_profile(profile)
        order(configs)
    except EbnerdError as error:  # its message ends with the remedy
        yield Finding(WRONG, "parameters", str(error))
        return
    yield Finding(OK, "parameters", f"valid, for {len(configs)} stages")
    states = dict[str, list[str]]()
    for run in read_runs(profile):
        states.setdefault(run.state, []).append(run.stage)
    text = "; ".join(f"{state}: {', '.join(names)}" for state, names in states.items())
    remedy = f"read why in outputs/{profile}/index.html; `make run-all PROFILE={profile}` tries again"
    yield Finding(WARN if "failed" in states else OK, "stages", text, remedy)


def check_outputs(profile: str) -> Iterator[Finding]:
    """See that a run can write to its folders, as far as they are there, and that no process holds its locks."""
    outputs, own = paths.ROOT / "outputs", paths.ROOT / "outputs" / profile
    there = [folder for folder in (outputs, own, *own.glob("*")) if folder.is_dir()] or [paths.ROOT]
    closed = [paths.relative(folder) for folder in there if not os.access(folder, os.W_OK | os.X_OK)]
    text = f"{', '.join(closed)} cannot be written" if closed else "can be written"
    yield Finding(WRONG if closed else OK, "outputs/", text, "chmod -R u+rwX outputs, or make it yours")
    if kept := os.environ.get("NUMBA_CACHE_DIR"):
        yield Finding(OK, "compiled code", f"kept in {kept}, which NUMBA_CACHE_DIR names")
    held = [f"{paths.relative(file)}: {who}" for file in own.glob("logs/**/*.lock") if (who := paths.holder(file))]
    yield Finding(WRONG if held else OK, "locks", "; ".join(held) or "none is held", "wait until it ends, or `kill` it")


def check_data(profile: str) -> Iterator[Finding]:
    """Describe the bundles in ``data/``, and say how to get the one that the profile reads."""
    from ebnerd_lib.data.bundle import open_parquet
    from ebnerd_lib.data.download import check_bundle
    from ebnerd_lib.data.layout import generated_stamp, size_in_words

    wanted = {paths.ROOT / bundle for bundle in _bundles(profile)}
    found = {folder for folder in (paths.ROOT / "data").glob("[!.]*") if any(folder.rglob("*.parquet"))}
    found -= {paths.ROOT / "data" / "bench"}  # bundles of `make bench`
    for folder in sorted(wanted | found):
        name = paths.relative(folder)
        if not folder.exists() and folder.name in ("smoke", "sample"):
            yield Finding(OK, name, f"not there yet: `make run-all PROFILE={folder.name}` generates it")
            continue
        try:
            check_bundle("ebnerd_testset" if (folder / "test").is_dir() else folder.name, folder)
            stamp, files = generated_stamp(folder), sorted(folder.glob("*/behaviors.parquet"))
            rows = [f"; {file.parent.name} {open_parquet(file).metadata.num_rows:,} impressions" for file in files]
        except EbnerdError as error:  # its message ends with the remedy
            yield Finding(WRONG if folder in wanted else WARN, name, str(error))
            continue
        origin = f"generated, {size_in_words(stamp['size'])}, seed {stamp['seed']}" if stamp else "not generated"
        yield Finding(OK, name, f"whole, {origin}{''.join(rows)}")


def _reinstall() -> tuple[str, str]:
    """Return the state of packages that cannot be used, and the remedy; `make` makes .venv unless PYTHON is named."""
    if not (paths.ROOT / ".venv" / "installed").exists() and "PYTHON" not in os.environ:
        return WARN, "there is no .venv yet: `make run-all` makes it with all packages"
    return WRONG, f"{paths.relative(Path(sys.executable))} -m pip install -r requirements.lock"


def _bundles(profile: str) -> set[str]:
    """Return the bundles that a profile reads; none where its parameters are wrong, which ``check_profile`` reports."""
    from ebnerd_lib.pipeline.params import load_profile

    try:
        configs = load_profile(profile).values()
    except EbnerdError:
        return set()
    return {str(config.parameters["bundle"]) for config in configs if "bundle" in config.parameters}


def _read(name: str) -> str:
    return (paths.ROOT / name).read_text(encoding="utf-8")


def _public(text: str) -> str:
    """Shorten local paths, and drop what would command a terminal."""
    text = text.replace(f"{paths.ROOT}/", "").replace(str(Path.home()), "~")
    return "".join(letter for letter in text if letter.isprintable())
