"""The house rules that no other tool keeps: the wheel's names, and how long functions and files may be."""

from __future__ import annotations

import ast
import gc
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "autoscaler",
    "forecasting",
    "gangscheduler",
    "kubeapi",
    "localcluster",
    "perfmodel",
    "policies",
    "roleratio",
    "serving",
    "simulator",
}
FUNCTION_MAX, FILE_MAX, API_SERVER_MAX = 70, 600, 1500

SOURCES = sorted(
    path
    for room in (*PACKAGES, "benchmarks", "dashboards", "tests")
    for path in (ROOT / room).rglob("*.py")
    if path.stat().st_size
)


@cache
def parsed(path: Path) -> ast.Module:
    """A file's syntax tree, made without collecting garbage: CPython 3.11 miscounts its recursion when a finaliser
    runs inside the parser, and then raises SystemError.
    """
    gc.disable()
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    finally:
        gc.enable()


def lines(path: Path) -> int:
    return path.read_text(encoding="utf-8").count("\n")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_the_wheel_has_exactly_our_top_level_names(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES


def test_the_wheel_ships_the_profile_and_the_licence(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert any(name.startswith("perfmodel/profiles/") and name.endswith(".json") for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_packages_of_pyproject_are_the_folders() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == PACKAGES
    assert set(project["tool"]["importlinter"]["root_packages"]) == PACKAGES


def long_functions(path: Path) -> Iterator[str]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_MAX:
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name} has {length} lines"


def test_a_function_fits_a_screen() -> None:
    assert [found for path in SOURCES for found in long_functions(path)] == []


def test_a_file_fits_a_sitting() -> None:
    assert [f"{path.relative_to(ROOT)}: {lines(path)}" for path in SOURCES if lines(path) > FILE_MAX] == []


def test_the_api_server_stays_small() -> None:
    total = sum(lines(path) for path in (ROOT / "localcluster" / "apiserver").rglob("*.py"))
    assert 0 < total < API_SERVER_MAX


def test_every_file_says_what_it_is_for() -> None:
    silent = [path for path in SOURCES if not ast.get_docstring(parsed(path))]
    assert [str(path.relative_to(ROOT)) for path in silent] == []


def test_shipped_profiles_are_small() -> None:
    profiles = list((ROOT / "perfmodel" / "profiles").glob("*.json"))
    assert profiles
    assert all(path.stat().st_size < 20_000 for path in profiles)
