"""The console's files: libraries as their lock says, nothing from elsewhere, no markup from text."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

STATIC = ROOT / "gateway" / "console" / "static"
VENDOR = STATIC / "vendor"
LOCK = json.loads((ROOT / "gateway" / "console" / "vendor" / "package-lock.json").read_text())
PACKAGES = {name.removeprefix("node_modules/"): about for name, about in LOCK["packages"].items() if name}
OURS = sorted(path for path in STATIC.rglob("*") if path.is_file() and VENDOR not in path.parents)
LIBRARIES = [path for path in sorted(VENDOR.iterdir()) if path.suffix != ".txt"]
SCRIPTS = [path for path in OURS if path.suffix == ".js"]
LONGEST = 300  # lines of a module


def named(path: Path) -> str:
    return path.relative_to(STATIC).as_posix()


@pytest.mark.parametrize(
    "path", [path for path in sorted(VENDOR.iterdir()) if path.suffix != ".txt"], ids=named
)
def test_a_library_is_the_version_of_the_lock_and_has_its_licence(path: Path) -> None:
    first = path.read_text().split("\n", 1)[0]
    found = re.fullmatch(r"/\* (\S+) (\S+), (\S+) \*/", first)
    assert found is not None, first
    name, version, licence = found.groups()
    assert (version, licence) == (PACKAGES[name]["version"], PACKAGES[name]["license"])
    assert (VENDOR / f"{name}.LICENSE.txt").stat().st_size > 500


def test_the_lock_names_no_address_that_packages_come_from() -> None:
    assert not [name for name, about in PACKAGES.items() if "resolved" in about]


@pytest.mark.parametrize("path", OURS, ids=named)
def test_a_file_names_no_other_host(path: Path) -> None:
    text = path.read_text().replace("http://www.w3.org/2000/svg", "")
    assert not re.findall(r"(?:https?:)?//[a-z][\w.-]+\.[a-z]{2,}", text)


def test_the_page_has_no_inline_script_or_style() -> None:
    text = (STATIC / "index.html").read_text()
    assert all(inside == "" for inside in re.findall(r"<script[^>]*>(.*?)</script>", text, re.DOTALL))
    assert not re.search(r"<style|\sstyle=|\son\w+=", text)


@pytest.mark.parametrize("path", SCRIPTS, ids=named)
def test_a_script_is_short_and_never_makes_markup_from_text(path: Path) -> None:
    text = path.read_text()
    words = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|dangerouslySet|\beval\(|new Function"
    assert not re.findall(words, text)
    assert len(text.splitlines()) <= LONGEST


@pytest.mark.parametrize("path", SCRIPTS, ids=named)
def test_what_a_script_imports_is_there(path: Path) -> None:
    wanted = re.findall(r"(?:from|import\()\s*'(\.[^']+)'", path.read_text())
    assert not [name for name in wanted if not (path.parent / name).resolve().is_file()]
