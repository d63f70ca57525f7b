"""The command line through real processes: help, versions, and one clear line for every mistake."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from roleratio.cli import COMMANDS

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n"


def roleratio(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "roleratio", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd, check=False)


def assert_one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("roleratio")
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    done = roleratio(command, "--help")
    assert done.returncode == 0, done.stderr
    assert f"example:\n  roleratio {command}" in done.stdout


def test_help_lists_every_command() -> None:
    done = roleratio("--help")
    assert done.returncode == 0
    for command in COMMANDS:
        assert command in done.stdout


def test_version() -> None:
    done = roleratio("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("roleratio 0.")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["fly"], ["fly", "demo"]),
        (["demo", "--static", "0,1"], ["--static", "'0,1'", "at least 1"]),
        (["demo", "--static", "3"], ["--static", "'3'"]),
        (["demo", "--static", "9,9"], ["--static 9,9", "32 GPUs", "at most 16"]),
        (["demo", "--cold-start-s", "-1"], ["--cold-start-s", "'-1'", "at least 0"]),
        (["demo", "--trace", "absent.csv"], ["absent.csv", "no such file"]),
        (["demo", "--kubeconfig-out", "absent/config"], ["absent/config", "no folder"]),
        (["demo", "--speed", "2"], ["--speed", "--trace"]),
        (["demo", "--speed", "nan", "--trace", "x"], ["--speed", "'nan'"]),
        (["localcluster", "--nodes", "0"], ["--nodes", "'0'"]),
        (["scheduler", "--kubeconfig", "absent"], ["absent", "--kubeconfig"]),
        (["scheduler", "--port", "70000"], ["--port", "70000"]),
        (["scheduler", "--lease-namespace", "ns"], ["--lease-namespace ns", "--leader-elect"]),
        (["controller", "--once"], ["--once", "--settings FILE"]),
        (["controller", "--settings", "absent.yaml"], ["absent.yaml"]),
        (["recommend", "--settings", "absent.yaml"], ["absent.yaml"]),
        (["doctor", "--settings", "absent.yaml"], ["absent.yaml"]),
        (["doctor", "--service", "chat"], ["--service chat", "NAMESPACE/SERVICE"]),
        (["explain"], ["JOURNAL", "--service"]),
        (["explain", "absent.jsonl"], ["absent.jsonl"]),
        (["explain", "--service", "a/b", "--controller", "http://127.0.0.1:9"], ["127.0.0.1:9"]),
        (["replay", "absent.jsonl"], ["absent.jsonl"]),
        (["check", "absent"], ["absent"]),
        (["serve", "router"], ["--service", "--endpoint"]),
        (["serve", "router", "--endpoint", "encode=http://127.0.0.1:1"], ["encode", "prefill=URL"]),
        (["serve", "prefill", "--profile", "absent"], ["absent"]),
        (["serve", "teapot"], ["teapot"]),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(words: list[str], told: list[str], tmp_path: Path) -> None:
    assert_one_line(roleratio(*words, cwd=tmp_path), *told)
    assert list(tmp_path.iterdir()) == []


def test_a_bad_trace_line_is_named_before_anything_starts(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv.gz"
    trace.write_bytes(gzip.compress((AZURE + "2023-11-16 18:17:09,many,10\n").encode()))
    report = tmp_path / "out"
    done = roleratio("demo", "--trace", str(trace), "--report", str(report))
    assert_one_line(done, str(trace), "line 3", "'many'")
    assert not report.exists()


@pytest.mark.parametrize("command", ["demo", "localcluster"])
def test_a_kubeconfig_of_a_real_cluster_is_never_overwritten(command: str, tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text("apiVersion: v1\nkind: Config\nclusters: [{name: production}]\n")
    before = path.read_bytes()
    done = roleratio(command, "--kubeconfig-out", str(path), cwd=tmp_path)
    assert_one_line(done, str(path), "not a local cluster's")
    assert path.read_bytes() == before


@pytest.fixture
def taken_port() -> Iterator[str]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield str(holder.getsockname()[1])


SETTINGS = "metadata: {name: demo}\nspec: {service: demo, profile: qwen3-32b-a100-tp2, gpuBudget: 4}\n"
KUBECONFIG = """{"apiVersion": "v1", "kind": "Config", "current-context": "x", "users": [{"name": "x", "user": {}}],
"clusters": [{"name": "x", "cluster": {"server": "http://127.0.0.1:9"}}],
"contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}]}"""


@pytest.mark.parametrize(
    "words",
    [
        ["scheduler", "--kubeconfig", "kubeconfig"],
        ["controller", "--settings", "settings.yaml", "--kubeconfig", "kubeconfig"],
        ["localcluster"],
        ["serve", "prefill", "--host", "127.0.0.1"],
        ["serve", "decode", "--host", "127.0.0.1"],
        ["serve", "router", "--host", "127.0.0.1", "--endpoint", "prefill=http://127.0.0.1:9"],
    ],
)
def test_a_taken_port_is_one_line(words: list[str], taken_port: str, tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text(SETTINGS)
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    done = roleratio(*words, "--port", taken_port, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith(f"roleratio {words[0]}: ")]
    assert len(told) == 1, done.stderr
    assert taken_port in told[0]
    assert "Traceback" not in done.stderr


def test_a_cluster_that_does_not_answer_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text(SETTINGS)
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    inputs = ("--settings", "settings.yaml", "--kubeconfig", "kubeconfig")
    assert_one_line(roleratio("recommend", *inputs, cwd=tmp_path), "127.0.0.1:9", "--kubeconfig")


def test_a_window_without_requests_is_told(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text(AZURE)
    done = roleratio("demo", "--trace", str(trace), "--start-s", "50", "--report", str(tmp_path / "out"))
    assert_one_line(done, "no request", "--start-s")


def test_a_settings_file_with_three_mistakes_is_three_lines(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(
        "metadata: {name: demo}\nspec: {service: demo, profile: qwen3-32b-a100-tp2, gpuBudget: 0, gpus: 3}\n"
    )
    with path.open("a") as file:
        file.write("colour: blue\n")
    done = roleratio("check", str(path))
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    for line, key in zip(lines, ("spec.gpuBudget", "spec.gpus", "colour"), strict=True):
        assert str(path) in line
        assert key in line


def test_check_says_what_a_file_is(tmp_path: Path) -> None:
    trace = tmp_path / "any-name"
    trace.write_bytes(gzip.compress(AZURE.encode()))
    settings = tmp_path / "settings.yaml"
    settings.write_text("metadata: {name: demo}\nspec: {service: demo, profile: qwen3-32b-a100-tp2, gpuBudget: 4}\n")
    for path, words in ((trace, "trace (Azure CSV): 1 requests"), (settings, "settings of default/demo")):
        done = roleratio("check", str(path))
        assert done.returncode == 0, done.stderr
        assert words in done.stdout


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("t.csv", "a,b,c\n", "TIMESTAMP"),
        ("p.json", json.dumps({"format": "roleratio.dev/profile/v1"}, indent=1), "profile"),
        ("j.jsonl", '{"type": "tick"}\n', "journal"),
    ],
)
def test_check_tells_the_problems_of_every_kind(tmp_path: Path, name: str, text: str, words: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    done = roleratio("check", str(path))
    assert done.returncode == 2
    assert words in done.stderr
    assert all(str(path) in line for line in done.stderr.splitlines())


@pytest.mark.parametrize(
    ("part", "environment", "forbidden"),
    [
        ("prefill", {}, ("rich", "pydantic", "kubernetes", "yaml", "kubeapi", "roleratio.demo")),
        ("decode", {}, ("rich", "pydantic", "kubernetes", "yaml", "kubeapi", "roleratio.demo")),
        ("decode", {"LWS_WORKER_INDEX": "1"}, ("aiohttp", "rich", "pydantic", "kubernetes", "yaml", "kubeapi")),
    ],
)
def test_a_worker_imports_only_what_it_needs(
    part: str, environment: dict[str, str], forbidden: tuple[str, ...]
) -> None:
    """The process is taken up to its server's first step, then asked what it has imported."""
    script = f"""
import os, sys
os.environ.update({environment!r})
from roleratio.commands import serve
from roleratio.cli import build_parser
arguments = build_parser("serve").parse_args(["serve", {part!r}])
serve._server(arguments).close()
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    modules = set(done.stdout.split())
    assert "serving.options" in modules
    assert not modules & set(forbidden)
