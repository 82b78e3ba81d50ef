"""Record licences and known vulnerabilities of the locked packages in ``dependencies.md``: ``make audit``.

Licences are read from the packages' own metadata by pip-licenses, vulnerabilities are asked for by pip-audit, both
in an environment that is thrown away. Where the advisory database does not answer, the record says so.
"""

import datetime
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "docs" / "dependencies.md"
TOOLS = ("pip-audit>=2.9", "pip-licenses>=5.0")
ELSEWHERE = ("win_amd64", "macosx_11_0_arm64", "any")
"""Platforms to look at for packages that are not installed on this one; the licence is the same on all."""

Package = tuple[str, str]


def locked() -> list[Package]:
    """Return name and version of every package in the lock, whatever its platform."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    entries = [Requirement(line.split("#")[0]) for line in lines if line.split("#")[0].strip()]
    return [(canonicalize_name(entry.name), next(iter(entry.specifier)).version) for entry in entries]


def main() -> int:
    """Ask, and write the record. Returns 1 if a vulnerability is known, else 0."""
    packages = locked()
    with tempfile.TemporaryDirectory() as folder:
        tools = Path(folder) / "tools"
        _run(sys.executable, "-m", "venv", str(tools))
        _run(str(tools / "bin" / "python"), "-m", "pip", "install", "--quiet", *TOOLS)
        licences = _licences(packages, Path(folder))
        advisories = _advisories(packages, Path(folder))
    RECORD.write_text(record(packages, licences, advisories, datetime.date.today()), encoding="utf-8")
    known = sum(bool(found) for found in advisories.values())
    unchecked = sum(found is None for found in advisories.values())
    print(
        f"{RECORD.relative_to(ROOT)}: {len(packages)} packages, {known} with vulnerabilities, {unchecked} not checked"
    )
    return int(known > 0)


def _run(*words: str, wanted: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode not in wanted:
        raise SystemExit(f"{Path(words[0]).name} {' '.join(words[1:4])} failed: {done.stderr.strip()[-500:]}")
    return done.stdout


def _licences(packages: list[Package], folder: Path) -> dict[Package, str]:
    """Read the licences of installed packages; the others are fetched for a platform that has them."""
    python = folder / "tools" / "bin" / "python"
    found = _read_licences(folder, Path(sys.executable))
    for name, version in [package for package in packages if package not in found]:
        other = folder / f"{name}-{version}"
        platforms = [word for platform in ELSEWHERE for word in ("--platform", platform)]
        _run(
            str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:",
            "--ignore-requires-python", "--python-version", "3.13", *platforms,
            "--target", str(other), f"{name}=={version}",
        )  # fmt: skip
        site = next((folder / "tools" / "lib").glob("python*")) / "site-packages" / "other.pth"
        site.write_text(f"{other}\n")
        found |= _read_licences(folder, python)
        site.unlink()
    return found


def _read_licences(folder: Path, python: Path) -> dict[Package, str]:
    words = ["--python", str(python), "--with-system", "--from", "mixed", "--format", "json"]
    words += ["--with-license-file", "--no-license-path"]
    listed = json.loads(_run(str(folder / "tools" / "bin" / "pip-licenses"), *words))
    return {(canonicalize_name(row["Name"]), row["Version"].split("+")[0]): _licence(row) for row in listed}


def _licence(row: dict[str, str]) -> str:
    """Return what a package declares, or where it declares nothing the first line of its licence file."""
    if row["License"] != "UNKNOWN":
        return row["License"]
    return next((line.strip() for line in row["LicenseText"].splitlines() if line.strip()), "UNKNOWN")


def _advisories(packages: list[Package], folder: Path) -> dict[Package, list[str] | None]:
    """Return the ids of known vulnerabilities by package, ``None`` where the database gave no answer."""
    found: dict[Package, list[str] | None] = dict.fromkeys(packages)
    rounds: list[list[Package]] = []  # a package may be locked in two versions, and a file names each once
    for package in packages:
        place = next((one for one in rounds if package[0] not in {name for name, _ in one}), None)
        if place is None:
            rounds.append(place := [])
        place.append(package)
    for number, entries in enumerate(rounds):
        wanted, answer = folder / f"wanted-{number}.txt", folder / f"answer-{number}.json"
        wanted.write_text("".join(f"{name}=={version}\n" for name, version in entries))
        words = ["-r", str(wanted), "--no-deps", "--disable-pip", "--format", "json", "--output", str(answer)]
        _run(str(folder / "tools" / "bin" / "pip-audit"), *words, "--progress-spinner", "off", wanted=(0, 1))
        if answer.exists():
            found |= read_answer(json.loads(answer.read_text()))
    return found


def read_answer(answer: dict) -> dict[Package, list[str] | None]:
    """Return what pip-audit found, by package; it skips a package that the database does not answer for."""
    return {
        (canonicalize_name(entry["name"]), entry["version"]): [found["id"] for found in entry["vulns"]]
        for entry in answer["dependencies"]
        if "skip_reason" not in entry
    }


def record(
    packages: list[Package],
    licences: dict[Package, str],
    advisories: dict[Package, list[str] | None],
    day: datetime.date,
) -> str:
    """Return the record as Markdown."""
    checked = [package for package in packages if advisories.get(package) is not None]
    vulnerable = [package for package in checked if advisories[package]]
    if not checked:
        told = f"Advisory database not reachable on {day}: vulnerabilities are not checked."
    else:
        told = (
            f"Checked with pip-audit on {day}: {len(checked)} of {len(packages)} packages, "
            f"{len(vulnerable)} with known vulnerabilities."
        )
    lines = [
        "# Locked packages: licences and known vulnerabilities",
        "",
        f"{told} `make audit` renews this file; licences are those that the packages declare.",
        "",
        "| package | version | licence | known vulnerabilities |",
        "|---|---|---|---|",
    ]
    for package in packages:
        ids = advisories.get(package)
        found = "not checked" if ids is None else ", ".join(ids) or "none"
        licence = licences.get(package, "UNKNOWN").replace("|", "/").split("\n")[0]
        lines.append(f"| {package[0]} | {package[1]} | {licence} | {found} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
