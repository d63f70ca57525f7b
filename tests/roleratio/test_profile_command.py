"""`roleratio profile convert`: a table becomes a file that `roleratio check` accepts; mistakes are one line each."""

from __future__ import annotations

from pathlib import Path

import pytest

from roleratio.cli import main
from tests.shared_data import shared

WORDS = ["--model", "llama2-70b", "--system", "h100-80gb", "--tp", "8"]


def test_what_is_written_is_a_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, output = shared("data/perf/splitwise_perf_model.csv.gz"), tmp_path / "p.json"
    command = ["profile", "convert", "splitwise", str(table), *WORDS, "--transfer-gb-per-s", "12.5"]
    assert main([*command, "--output", str(output)]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "note: decode_ms: isotonic repair moved" in told.err
    assert main(["check", str(output)]) == 0
    assert "profile of llama2-70b on 8 x h100-80gb" in capsys.readouterr().out
    assert main(command) == 0
    assert capsys.readouterr().out == output.read_text()


def test_mistakes_are_one_line_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["profile", "convert", "splitwise", str(tmp_path / "no.csv.gz"), *WORDS]
    assert main([*command, "--max-num-seqs", "0", "--transfer-gb-per-s", "-1"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "roleratio profile: --max-num-seqs 0: expected above 0",
        "roleratio profile: --transfer-gb-per-s -1: expected above 0",
    ]
    assert main(command) == 2
    assert "no.csv.gz: cannot be read: No such file or directory" in capsys.readouterr().err


def test_an_output_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = shared("data/perf/splitwise_perf_model.csv.gz")
    assert main(["profile", "convert", "splitwise", str(table), *WORDS, "--output", str(tmp_path)]) == 2
    assert f"{tmp_path}: cannot be written: Is a directory; give another path" in capsys.readouterr().err
