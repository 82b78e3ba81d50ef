"""The record of the locked packages: whole, of these versions, and free of licences that the project cannot take on."""

import datetime
import importlib.util
import re
from importlib.metadata import PackageNotFoundError, metadata, version

import pytest

from ebnerd_lib.pipeline.layout import ROOT

DENIED = re.compile(
    r"\bA?GPL|GNU (Affero )?General Public|\bSSPL|Commons Clause|UNKNOWN|Proprietary|^\s*$", re.IGNORECASE
)


def denied(licence: str) -> bool:
    """Say whether no alternative that a licence offers can be taken on; the Lesser GPL can."""
    return all(DENIED.search(choice) for choice in re.split(r" OR |; ", licence))


@pytest.fixture(scope="module")
def dependencies():
    spec = importlib.util.spec_from_file_location("dependencies", ROOT / "docs" / "dependencies.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows(dependencies):
    text = dependencies.RECORD.read_text(encoding="utf-8")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {(name, locked): (licence, found) for name, locked, licence, found in cells[2:]}


def test_every_locked_package_is_recorded_and_no_other(dependencies, rows):
    assert list(rows) == dependencies.locked()
    assert len(rows) > 150


def test_every_licence_is_known_and_can_be_taken_on(rows):
    assert {package: licence for package, (licence, _) in rows.items() if denied(licence)} == {}


def test_licences_are_those_that_the_installed_packages_declare(rows):
    compared = 0
    for (name, locked), (licence, _) in rows.items():
        try:
            if version(name).split("+")[0] == locked and (declared := metadata(name)["License-Expression"]):
                assert licence == declared, name
                compared += 1
        except PackageNotFoundError:
            continue
    assert compared > 30


def test_what_is_known_of_vulnerabilities_is_dated_and_not_claimed_where_nothing_was_checked(dependencies, rows):
    text = dependencies.RECORD.read_text(encoding="utf-8")
    assert re.search(r"(not reachable|pip-audit) on \d{4}-\d\d-\d\d: ", text)
    unchecked = [package for package, (_, found) in rows.items() if found == "not checked"]
    assert ("vulnerabilities are not checked" in text) == (len(unchecked) == len(rows))
    assert not [package for package, (_, found) in rows.items() if found not in ("none", "not checked")]


def test_what_the_advisory_database_says_is_recorded(dependencies):
    answer = {
        "dependencies": [
            {"name": "Jinja2", "version": "3.1.6", "vulns": [{"id": "CVE-1"}, {"id": "CVE-2"}]},
            {"name": "numpy", "version": "2.4.6", "vulns": []},
            {"name": "torch", "skip_reason": "Dependency not found"},
        ]
    }
    packages = [("jinja2", "3.1.6"), ("numpy", "2.4.6"), ("torch", "2.13.0")]
    text = dependencies.record(
        packages, dict.fromkeys(packages, "MIT"), dependencies.read_answer(answer), datetime.date(2025, 1, 2)
    )
    assert "on 2025-01-02: 2 of 3 packages, 1 with known vulnerabilities" in text
    assert "| jinja2 | 3.1.6 | MIT | CVE-1, CVE-2 |" in text and "| numpy | 2.4.6 | MIT | none |" in text
    assert "| torch | 2.13.0 | MIT | not checked |" in text


@pytest.mark.parametrize(
    "licence, bad",
    [
        ("GPL-3.0-only", True), ("AGPL-3.0-or-later", True), ("UNKNOWN", True), ("", True), ("MIT", False),
        ("GNU General Public License v3 (GPLv3)", True), ("GPL-2.0-only OR MIT", False), ("LGPL-3.0-only", False),
        ("GNU Affero General Public License v3", True), ("Mozilla Public License 2.0 (MPL 2.0)", False),
    ],
)  # fmt: skip
def test_the_check_tells_licences_apart(licence, bad):
    assert denied(licence) is bad
