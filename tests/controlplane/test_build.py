"""The build's words and its cache, without building; the build itself is what `make test` begins with."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.controlplane import build, start
from tests.controlplane.plane import Absent, existing


def run_build(**environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in build.INSTEAD}
    return subprocess.run(
        [sys.executable, str(build.HERE / "build.py")],
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_what_is_built_is_found_again_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    target = build.binary()
    assert target.is_relative_to(tmp_path / "roleratio" / "controlplane")
    target.parent.mkdir(parents=True)
    target.touch()
    done = run_build(PATH="")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{target}\n", "")


@pytest.mark.skipif(shutil.which("go") is None, reason="this machine has no Go of its own")
def test_a_build_without_network_is_one_clear_line(tmp_path: Path) -> None:
    done = run_build(XDG_CACHE_HOME=str(tmp_path), GOMODCACHE=str(tmp_path / "modules"), GOPROXY="off", GOFLAGS="")
    assert (done.returncode, done.stdout) == (2, "")
    *_, last = done.stderr.strip().split("\n")
    assert "did not build" in last
    assert "module lookup disabled by GOPROXY=off" in last
    assert "pytest -m 'not apiserver'" in last
    assert not build.binary().is_relative_to(tmp_path)
    assert [path.name for path in tmp_path.rglob("controlplane") if path.is_file()] == []


@pytest.mark.parametrize("name", build.INSTEAD)
def test_nothing_is_built_where_another_server_serves(name: str, tmp_path: Path) -> None:
    done = run_build(XDG_CACHE_HOME=str(tmp_path), **{name: "/somewhere"})
    assert (done.returncode, list(tmp_path.iterdir())) == (0, [])
    assert done.stderr.startswith(f"{name} is set: ")


def test_what_is_not_built_says_how_to_build_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(Absent, match="run `make controlplane`"):
        start.programs()


def test_assets_need_etcd_and_an_api_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    (tmp_path / "etcd").touch()
    with pytest.raises(Absent, match=f"KUBEBUILDER_ASSETS={tmp_path} holds no kube-apiserver"):
        start.programs()
    (tmp_path / "kube-apiserver").touch()
    assert set(start.programs()) == {"etcd", "kube-apiserver"}


def test_a_component_that_ends_is_named_with_its_last_words_and_nothing_stays(tmp_path: Path) -> None:
    lasting = "import os, pathlib, time; pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(60)"
    broken = (
        "import pathlib, sys, time\nwhile not pathlib.Path('pid').exists(): time.sleep(0.01)\nsys.exit('no such gate')"
    )
    available = {"etcd": [sys.executable, "-c", lasting], "kube-apiserver": [sys.executable, "-c", broken]}
    with pytest.raises(start.StartError, match=r"kube-apiserver ended before it could .*: no such gate"):
        start.control_plane(available, tmp_path).__enter__()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_component_does_not_outlive_the_tests(tmp_path: Path) -> None:
    parent = f"""
import pathlib, sys
from tests.controlplane.process import Process
child = Process("sleep", ["sleep", "60"], pathlib.Path({str(tmp_path)!r}) / "log")
print(child.pid, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", parent], cwd=build.HERE.parent.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        watched = os.pidfd_open(int(process.stdout.readline()))
        process.kill()
    # A process's descriptor becomes readable when it ends.
    assert select.select([watched], [], [], 10.0)[0] == [watched]
    os.close(watched)


def test_a_kubeconfig_that_is_none_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(Absent, match=r"ROLERATIO_TEST_KUBECONFIG=.*missing is no usable kubeconfig: "):
        existing(tmp_path / "missing", tmp_path)


def test_a_kubeconfig_of_before_serves_as_it_is(tmp_path: Path) -> None:
    authority = tmp_path / "authority.pem"
    authority.write_text("CERTIFICATE", encoding="utf-8")
    text = f"""
apiVersion: v1
kind: Config
current-context: a
contexts: [{{name: a, context: {{cluster: a, user: a}}}}]
users: [{{name: a, user: {{token: secret}}}}]
clusters: [{{name: a, cluster: {{server: "https://127.0.0.1:6443", certificate-authority: {authority}}}}}]
"""
    given = tmp_path / "given"
    given.write_text(text, encoding="utf-8")
    plane = existing(given, tmp_path)
    assert plane.url == "https://127.0.0.1:6443"
    assert plane.ca_file is not None
    assert plane.ca_file.read_text(encoding="utf-8") == "CERTIFICATE"
    assert "secret" in plane.kubeconfig.read_text(encoding="utf-8")
