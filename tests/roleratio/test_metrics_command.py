"""`roleratio metrics`: real pages as people read them, and as JSON; pages that are none."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from aiohttp import web

from autoscaler.adapters.pages import as_corpus, read_page
from roleratio.cli import main
from roleratio.metrics_page import WIDTH, page_text
from tests.autoscaler.pages import ROUTER, WORKER, server, text
from tests.shared_data import shared

PAGES = "data/metrics"


def page_file(tmp_path: Path, body: str) -> Path:
    path = tmp_path / "page.prom"
    path.write_text(body, encoding="utf-8")
    return path


def test_every_engine_of_a_page_has_its_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics", str(page_file(tmp_path, WORKER))]) == 0
    said = capsys.readouterr().out
    assert said.startswith("vllm: the page of an engine; role not said; model example/tiny\n")
    rows = {line.split()[0]: line.split()[1:] for line in said.splitlines() if line.startswith(("engine=", "all "))}
    assert rows["engine=0"][:3] == ["64", "7", "98.0%"]
    assert rows["engine=1"][:3] == ["2", "0", "2.0%"]
    assert rows["all"][:3] == ["66", "7", "50.0%"]
    assert "fullest engine's KV use: 98.0%" in said
    assert "  waiting_by_reason: " in said, "engine 1 does not say it"
    assert ["TTFT", "110", "827", "ms"] in [line.split()[:4] for line in said.splitlines()]
    assert "  itl: vllm:inter_token_latency_seconds is not on the page" in said


def test_a_router_is_told_as_none_of_the_engines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics", str(page_file(tmp_path, ROUTER))]) == 0
    assert "roleratio-router: the page of a router, not of an engine" in capsys.readouterr().out


def test_json_is_the_corpus_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics", str(page_file(tmp_path, WORKER)), "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == as_corpus(read_page(WORKER))


def test_every_page_of_the_corpus_is_given_in_its_form(capsys: pytest.CaptureFixture[str]) -> None:
    for path in sorted(shared(PAGES).glob("*.prom")):
        code = main(["metrics", str(path), "-o", "json"])
        said = capsys.readouterr()
        if "json_body" in path.name:
            assert (code, said.out) == (2, "")
            assert said.err.startswith(f"roleratio metrics: {path}: page is JSON")
            continue
        assert code == 0, path.name
        assert json.loads(said.out) == as_corpus(read_page(path.read_text(encoding="utf-8"))), path.name


def test_a_page_may_come_from_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(WORKER.encode())))
    assert main(["metrics", "-"]) == 0
    assert capsys.readouterr().out.startswith("vllm: the page of an engine; ")


def test_every_page_of_the_corpus_can_be_read_by_people() -> None:
    files = [path for path in sorted(shared(PAGES).glob("*.prom")) if "json_body" not in path.name]
    assert len(files) >= 22
    for path in files:
        page = read_page(path.read_text(encoding="utf-8"))
        said = page_text(page)
        assert said.startswith(f"{page.engine}: the page of a"), path.name
        assert "Missing(" not in said, path.name
        prose = said.partition("\nnot said:")[2].splitlines()
        assert [line for line in prose if len(line) > WIDTH] == [], path.name


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ('[{"iterLatencyMS": 12.5}]', "page is JSON"),
        ("<html><body>Welcome</body></html>", "page is HTML"),
        ("", "page is empty"),
        (WORKER + "vllm:num_requests_running{", "page is cut off in its last line"),
    ],
)
def test_what_is_no_page_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], body: str, why: str
) -> None:
    path = page_file(tmp_path, body)
    assert main(["metrics", str(path)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"roleratio metrics: {path}: {why}")
    assert said.err.count("\n") == 1


def test_a_page_of_nobody_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics", str(page_file(tmp_path, "go_goroutines 7\n"))]) == 1
    assert capsys.readouterr().out.startswith("nobody's page: ")


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics", "absent.prom"]) == 2
    assert capsys.readouterr().err.startswith("roleratio metrics: absent.prom: cannot be read: No such file")


async def test_a_page_is_asked_for_as_the_controller_asks() -> None:
    asked: list[str] = []

    async def page(request: web.Request) -> web.Response:
        asked.append(request.headers["Accept"])
        return web.Response(text=WORKER)

    async with server({"/metrics": page, "/missing": text("no such page", status=404)}) as url:
        code, out, _ = await _run("metrics", f"{url}/metrics")
        assert code == 0
        assert out.startswith("vllm: ")
        code, _, err = await _run("metrics", f"{url}/missing")
        assert code == 2
        assert f"{url}/missing: page was not served: HTTP 404; check the address" in err
    assert asked == ["text/plain;version=0.0.4"]
    code, _, err = await _run("metrics", f"{url}/metrics")
    assert code == 2
    assert "cannot connect: Connection refused" in err


async def _run(*words: str) -> tuple[int | None, str, str]:
    import asyncio

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "roleratio", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()
