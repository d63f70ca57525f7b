"""The parser: what the format allows is read, what it does not is one clear line, and no input takes long."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from autoscaler.adapters.pages import PageError, read_page
from autoscaler.adapters.pages import text as parser
from autoscaler.adapters.pages.text import parse
from tests.autoscaler.reader.test_corpus import FILES, text

RENAMED = ("tgi_3.x", "triton_trtllm_23.12_readme", "llamacpp_b11434", "dynamo_1.6.1_frontend_pd_kv_over_1")
RENAMED_BY_TYPE = (*RENAMED, "dynamo_2025_frontend_aiperf_fixture", "trtllm_json_body_at_metrics")


def one(line: str) -> tuple[str, dict[str, str], float]:
    ((name, series),) = parse(line).series.items()
    ((labels, value),) = series.items()
    return name, dict(labels), value


@pytest.mark.parametrize(
    ("line", "name", "labels", "value"),
    [
        ("a 1", "a", {}, 1.0),
        ("a:b_c{} 1", "a:b_c", {}, 1.0),
        ("  a\t2  ", "a", {}, 2.0),
        ('a{b="c",} 1\r\n', "a", {"b": "c"}, 1.0),
        ('a { b = "c" , d = "e" } 1', "a", {"b": "c", "d": "e"}, 1.0),
        ('a{b="}{,= \\"x\\" \\\\ \\n#"} 1 # EOF'.replace(" # EOF", ""), "a", {"b": '}{,= "x" \\ \n#'}, 1.0),
        ('a{b="None",c="[1, 2]"} 1', "a", {"b": "None", "c": "[1, 2]"}, 1.0),
        ('a{b="é\u2028\x0b"} 1', "a", {"b": "é\u2028\x0b"}, 1.0),
        ("a 1.5e+011", "a", {}, 1.5e11),
        ("a -1 1700000000000", "a", {}, -1.0),
        ("a 3 1700000000.5", "a", {}, 3.0),
        ('a_bucket{le="1"} 4 # {trace_id="x}y"} 0.5 1700000000.1', "a_bucket", {"le": "1"}, 4.0),
        ('{"vllm:num_requests_running",engine="0"} 3', "vllm:num_requests_running", {"engine": "0"}, 3.0),
        ('{"a.b","c.d"="e"} 3', "a.b", {"c.d": "e"}, 3.0),
        ("U__vllm_3a_num__requests 3", "vllm:num_requests", {}, 3.0),
        ("a +Inf", "a", {}, math.inf),
    ],
)
def test_what_the_format_allows(line: str, name: str, labels: dict[str, str], value: float) -> None:
    assert one(line) == (name, labels, value)


@pytest.mark.parametrize(
    "line",
    [
        "a",
        "a one",
        "a 1_000",
        "a 0x1F",
        "1a 1",
        "a-b 1",
        'a{b="c" 1',
        "a{b=c} 1",
        'a{b="c"d="e"} 1',
        'a{b="c",b="d"} 1',
        'a{"b"} 1',
        '{b="c"} 1',
        '{"a","b"} 1',
        "a 1 2 3",
        'a{b="\\"} 1',
        "a} 1",
    ],
)
def test_what_it_does_not_allow_refuses_the_page(line: str) -> None:
    with pytest.raises(PageError, match="has a line that is not in the exposition format: line 2"):
        parse(f"up 1\n{line}\nup 1\n")


@pytest.mark.parametrize(
    ("page", "says"),
    [
        ("", "is empty"),
        (" \n\r\n", "is empty"),
        ("# HELP a b\n# EOF\n", "holds no sample"),
        ("[]", "JSON, as TensorRT-LLM answers at /metrics: try /prometheus/metrics"),
        ('[{"iter": 1, "kvCacheStats": {}}]', "try /prometheus/metrics"),
        ('{"detail": "Not Found"}', "is JSON, not metrics"),
        ("<!DOCTYPE html><html>", "is HTML"),
        ("\ufeff<html>", "is HTML"),
        ("\x00\x01\x02", "is binary"),
        ("\ufffd" * 20, "is binary"),
        ("Not found", "line 1: 'Not found'"),
        ('up 1\nvllm:num_requests_running{engine="0', "is cut off in its last line, 2"),
        ("up 1\nvllm:num_requ", "is cut off"),
    ],
)
def test_bad_pages_are_one_clear_line(page: str, says: str) -> None:
    with pytest.raises(PageError) as caught:
        read_page(page)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_openmetrics_page_that_does_not_end_is_cut_off() -> None:
    kind = "application/openmetrics-text; version=1.0.0"
    assert parse("up 1\n# EOF\n", content_type=kind).series.keys() == {"up"}
    with pytest.raises(PageError, match="is cut off"):
        parse("up 1\n", content_type=kind)


@pytest.mark.parametrize(
    ("limit", "small", "page"),
    [
        ("MAX_BYTES", 10, "vllm:num_requests_running 1\n"),
        ("MAX_SAMPLES", 3, "up 1\n" * 4),
        ("MAX_LABELS", 2, 'up{a="1",b="2",c="3"} 1\n'),
        ("MAX_LABEL_VALUE", 4, 'up{a="12345"} 1\n'),
    ],
)
def test_limits(limit: str, small: int, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse(page).series
    monkeypatch.setattr(parser, limit, small)
    with pytest.raises(PageError):
        parse(page)


def test_the_same_series_twice_is_one_and_a_contradiction_is_no_number() -> None:
    assert parse('a{b="1",c="2"} 3\na{c="2",b="1"} 3\n').series["a"] == {(("b", "1"), ("c", "2")): 3.0}
    found = parse("a 3\na 4\na 3\na 5\n")
    assert math.isnan(found.series["a"][()])
    assert found.conflicts == {"a"}
    assert parse("a NaN\na NaN\n").conflicts == frozenset()


def test_only_known_names_are_kept_and_the_others_are_named() -> None:
    found = parse('a{x="1"} 1\nb{y="2"} 2\n{"c",z="3"} 3\n', known={"a"})
    assert found.series.keys() == {"a"}
    assert found.others == {"b", "c"}


@given(st.dictionaries(st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,8}", fullmatch=True), st.text(max_size=20), max_size=5))
def test_any_label_value_comes_back(labels: dict[str, str]) -> None:
    def quoted(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    block = ",".join(f'{label}="{quoted(value)}"' for label, value in labels.items())
    assert one(f"a{{{block}}} 1") == ("a", labels, 1.0)


@pytest.mark.parametrize("name", [name for name in FILES if name not in RENAMED_BY_TYPE])
def test_the_same_samples_as_the_reference_parser(name: str) -> None:
    reference: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for family in text_string_to_metric_families(text(name)):
        for sample in family.samples:
            reference[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    ours = {(one, labels): value for one, each in parse(text(name)).series.items() for labels, value in each.items()}
    assert ours == reference


@pytest.mark.parametrize("name", RENAMED)
def test_names_stand_as_on_the_page_where_the_reference_parser_renames(name: str) -> None:
    page = text(name)
    written = {line.split("{")[0].split(" ")[0] for line in page.splitlines() if line and line[0] != "#"}
    theirs = {sample.name for family in text_string_to_metric_families(page) for sample in family.samples}
    assert parse(page).series.keys() == written
    assert theirs != written


HOSTILE = ('a{b="' + "\\\\" * 200_000, "a{" * 200_000, 'a{b="c",' * 100_000, '{"' + "x" * 400_000, "a " * 200_000)


@pytest.mark.parametrize("page", HOSTILE)
@pytest.mark.timeout(10)
def test_hostile_lines_end(page: str) -> None:
    with pytest.raises(PageError):
        read_page(page)
