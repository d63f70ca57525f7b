"""Traces: both formats, windows, and one clear line for everything that is wrong."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from autoscaler.errors import UserError
from roleratio import traces
from roleratio.traces import Arrival

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:17:04.4799600,3180,8
2023-11-16 18:18:03.9799600,110,27
"""
MOONCAKE = """{"timestamp": 3000, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1]}
{"timestamp": 6000, "input_length": 7322, "output_length": 490}
"""


def test_azure_times_are_relative_to_the_first_request() -> None:
    trace = traces.parse(AZURE.splitlines(), "a.csv")
    assert trace.format == "Azure CSV"
    assert trace.arrivals == (
        Arrival(0.0, 4808, 10),
        Arrival(pytest.approx(0.5), 3180, 8),
        Arrival(pytest.approx(60.0), 110, 27),
    )


def test_azure_times_with_a_zone_and_without_are_the_same_moments() -> None:
    rows = ["TIMESTAMP,ContextTokens,GeneratedTokens", "2024-05-10 00:00:00+00:00,5,6", "2024-05-10 00:00:01,7,8"]
    assert traces.parse(rows, "a.csv").arrivals == (Arrival(0.0, 5, 6), Arrival(1.0, 7, 8))


def test_mooncake_milliseconds_become_seconds() -> None:
    trace = traces.parse(MOONCAKE.splitlines(), "m.jsonl")
    assert trace.format == "Mooncake JSONL"
    assert trace.arrivals == (Arrival(0.0, 6758, 500), Arrival(3.0, 7322, 490))
    assert trace.span_s == 3.0


def test_empty_lines_are_passed_over_and_equal_times_kept() -> None:
    lines = MOONCAKE.splitlines()
    assert traces.parse([lines[0], "", lines[1]], "m.jsonl") == traces.parse(lines, "m.jsonl")
    assert [one.at_s for one in traces.parse([lines[0], lines[0]], "m.jsonl").arrivals] == [0.0, 0.0]


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("name", ["t.csv", "t.gz", "t"])
def test_compression_is_told_by_content_not_by_name(tmp_path: Path, name: str, compress: bool) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(AZURE.encode()) if compress else AZURE.encode())
    assert traces.read(path) == traces.parse(AZURE.splitlines(), "x")


def test_window_and_speed() -> None:
    trace = traces.parse(AZURE.splitlines(), "a.csv")
    assert [a.input_tokens for a in traces.select(trace, start_s=0.25)] == [3180, 110]
    assert traces.select(trace, start_s=0.5, speed=2.0) == (
        Arrival(pytest.approx(0.0), 3180, 8),
        Arrival(pytest.approx(29.75), 110, 27),
    )
    assert [a.input_tokens for a in traces.select(trace, speed=2.0, duration_s=30.0)] == [4808, 3180]
    assert traces.select(trace, start_s=100.0) == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["empty"]),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", ["no request"]),
        ("time,in,out\n1,2,3\n", ["line 1", "time,in,out", "TIMESTAMP,ContextTokens,GeneratedTokens"]),
        (AZURE + "2023-11-16 18:19:00,12\n", ["line 5", "expected 3 fields", "found 2"]),
        (AZURE + "yesterday,12,3\n", ["line 5", "'yesterday'", "not a date"]),
        (AZURE + "2023-11-16 18:19:00,-4,3\n", ["line 5", "ContextTokens '-4'", "at least 1"]),
        (AZURE + "2023-11-16 18:19:00,4,many\n", ["line 5", "GeneratedTokens 'many'"]),
        (AZURE + "\n2023-11-16 18:18:02.9799600,4,3\n", ["line 6", "1 s before the line above", "sort it by time"]),
        (MOONCAKE + "{\n", ["line 3", "not JSON"]),
        (MOONCAKE + "[1]\n", ["line 3", "expected a JSON object"]),
        (MOONCAKE + '{"timestamp": 1, "input_length": 5}\n', ["line 3", "no field 'output_length'"]),
        (MOONCAKE + '{"timestamp": 1, "input_length": 0, "output_length": 5}\n', ["line 3", "input_length 0"]),
        (MOONCAKE + '{"timestamp": NaN, "input_length": 1, "output_length": 5}\n', ["line 3", "timestamp nan"]),
        (MOONCAKE + '{"timestamp": 1, "input_length": true, "output_length": 5}\n', ["line 3", "input_length True"]),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place(text: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        traces.parse(text.splitlines(), "t")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("trace t: ")
    for word in words:
        assert word in message


@pytest.mark.parametrize("content", [gzip.compress(AZURE.encode())[:-9], b"\xff\xfe\x00bad"])
def test_unreadable_files_are_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"trace {path}: ") as caught:
        traces.read(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.csv: no such file"):
        traces.read(tmp_path / "absent.csv")
