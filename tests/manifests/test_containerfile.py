"""The Containerfile, without a container engine: what it copies exists, builds, installs and answers."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

from tests.manifests.access import ACCOUNTS, BASE, ROOT, deployment, render

Instruction = tuple[str, str]


def instructions() -> list[Instruction]:
    """(WORD, rest) of every instruction."""
    lines = (ROOT / "Containerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    words = [line.split(maxsplit=1) for line in lines if line.strip() and not line.startswith("#")]
    return [(word, rest) for word, rest in words]


def stages() -> list[list[Instruction]]:
    found: list[list[Instruction]] = []
    for word, rest in instructions():
        if word == "FROM":
            found.append([])
        found[-1].append((word, rest))
    return found


def copied() -> list[str]:
    """Everything that is copied from the build context."""
    copies = [rest.split()[:-1] for word, rest in instructions() if word == "COPY" and not rest.startswith("--from")]
    return [source for sources in copies for source in sources]


def ignored(path: str) -> bool:
    """As .containerignore says: the last pattern that matches decides."""
    verdict = False
    for line in (ROOT / ".containerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.removeprefix("!").removeprefix("**/")
        if line and not line.startswith("#") and fnmatch.fnmatch(path, pattern):
            verdict = not line.startswith("!")
    return verdict


def project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_source_exists_and_is_in_the_build_context() -> None:
    assert copied()
    for source in copied():
        assert (ROOT / source).exists(), source
        assert not ignored(source), source


def test_the_context_leaves_out_everything_else() -> None:
    kept = {path.name for path in ROOT.iterdir() if not ignored(path.name)}
    assert kept == set(copied())
    assert ignored("roleratio/__pycache__")


def test_it_copies_every_package_of_the_wheel() -> None:
    packages = project()["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]  # type: ignore[index]
    assert set(packages) <= set(copied())


def test_the_image_that_runs_has_no_root_and_no_sources() -> None:
    builder, runtime = stages()
    assert builder[0][1] == "python:3.11-slim AS builder"
    assert runtime[0] == ("FROM", "python:3.11-slim")
    assert [rest for word, rest in runtime if word == "COPY"] == ["--from=builder /opt/roleratio /opt/roleratio"]
    assert "RUN" not in {word for word, _ in runtime}
    assert [rest for word, rest in runtime if word == "ENTRYPOINT"] == ['["roleratio"]']
    pods = [deployment(render(BASE), name)["spec"]["template"]["spec"] for name in ACCOUNTS]
    users = {f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" for pod in pods}
    assert {rest for word, rest in runtime if word == "USER"} == users


def test_the_manifests_run_this_version() -> None:
    images = {
        container["image"]
        for name in ACCOUNTS
        for container in deployment(render(BASE), name)["spec"]["template"]["spec"]["containers"]
    }
    assert images == {f"roleratio:{project()['project']['version']}"}  # type: ignore[index]
    built = re.search(r"build -t (\S+)", (ROOT / "Containerfile").read_text(encoding="utf-8"))
    assert built is not None
    assert images == {built[1]}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty virtual environment with what the builder stage installs, less the dependencies."""
    folder = tmp_path_factory.mktemp("image")
    for source in copied():
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, folder / "src" / source, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (folder / "src").mkdir(exist_ok=True)
            shutil.copy(ROOT / source, folder / "src" / source)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=folder / "src", check=True, capture_output=True)
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    site = next((folder / "venv").glob("lib/python*/site-packages"))
    install = [
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--disable-pip-version-check",
        "--no-warn-script-location",
    ]
    wheel = next(folder.glob("*.whl"))
    pip = [sys.executable, "-m", "pip", f"--python={folder / 'venv' / 'bin' / 'python'}", *install, str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    # The dependencies are those of the environment that runs the tests; our own packages come from the wheel.
    dependencies = Path(next(p for p in sys.path if p.endswith("site-packages")))
    (site / "dependencies.pth").write_text(f"{dependencies}\n", encoding="utf-8")
    return folder / "venv"


def run(venv_folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """As the image would: nothing in the environment, nothing of the checkout in reach."""
    environment = {"PATH": f"{venv_folder / 'bin'}{os.pathsep}{os.defpath}", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(venv_folder / "bin" / "roleratio"), *arguments]
    return subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, timeout=60)


def test_what_is_installed_answers_with_its_version(installed: Path) -> None:
    done = run(installed, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"roleratio {project()['project']['version']}\n", "")  # type: ignore[index]


@pytest.mark.parametrize("command", ["controller", "scheduler"])
def test_the_packages_that_a_process_needs_are_in_the_image(installed: Path, command: str) -> None:
    modules = {"controller": "autoscaler.drivers.live", "scheduler": "gangscheduler.loop"}
    code = f"import {modules[command]} as m; print(m.__file__)"
    python = str(installed / "bin" / "python")
    done = subprocess.run([python, "-c", code], cwd="/", env={}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(installed)
    assert run(installed, command, "--help").returncode == 0
