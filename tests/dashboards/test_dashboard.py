"""The dashboard's file: what Grafana reads of it, its layout, and what its queries may not do."""

from __future__ import annotations

import json
import re
from itertools import combinations, pairwise

import pytest

from dashboards import build
from tests.dashboards.queries import expressions, filled, panels

OF_THE_SCRAPE = {"namespace", "service", "container", "job", "instance", "endpoint", "node", "prometheus"}
GRAFANA_PANEL = {
    "datasource": dict,
    "description": str,
    "fieldConfig": dict,
    "gridPos": dict,
    "id": int,
    "options": dict,
    "targets": list,
    "title": str,
    "type": str,
}


def test_the_file_is_what_the_module_writes() -> None:
    assert build.TARGET.read_text(encoding="utf-8") == build.text(), "run `make dashboards`"


def test_panels_have_the_fields_that_grafana_reads() -> None:
    for panel in panels():
        assert {name: type(value) for name, value in panel.items()} == GRAFANA_PANEL, panel["title"]
        assert panel["fieldConfig"].keys() == {"defaults", "overrides"}
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["description"]
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"]
            assert target["expr"]
            assert target["legendFormat"]
    found = build.dashboard()
    assert found["schemaVersion"] == 39
    assert found["id"] is None
    assert [variable["name"] for variable in found["templating"]["list"]] == [
        "datasource",
        "target_namespace",
        "target_service",
    ]


def test_ids_titles_and_letters_are_unique() -> None:
    every = build.dashboard()["panels"]
    assert [panel["id"] for panel in every] == list(range(1, len(every) + 1))
    titles = [(panel["type"], panel["title"]) for panel in every]
    assert len(set(titles)) == len(titles)
    for panel in panels():
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters)


def cells(place: dict[str, int]) -> set[tuple[int, int]]:
    return {
        (x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])
    }


def test_panels_cover_the_page_once_and_leave_no_hole() -> None:
    places = [panel["gridPos"] for panel in build.dashboard()["panels"]]
    for one, other in combinations(places, 2):
        assert not cells(one) & cells(other)
    covered = set().union(*map(cells, places))
    height = max(place["y"] + place["h"] for place in places)
    assert covered == {(x, y) for x in range(24) for y in range(height)}
    assert all((a["y"], a["x"]) < (b["y"], b["x"]) for a, b in pairwise(places)), "in reading order"


@pytest.mark.parametrize("query", [pytest.param(query, id=where) for where, query in expressions()])
def test_queries_group_by_and_select_only_labels_that_no_scrape_renames(query: str) -> None:
    grouped = {name for names in re.findall(r"(?:by|on) \(([^)]*)\)", query) for name in names.split(", ")}
    assert not grouped & OF_THE_SCRAPE
    assert not re.search(r"\ble\s*(=|!)", query)
    engines = "vllm:" in query
    selected = {name for names in re.findall(r"\{([^}]*)\}", query) for name in re.findall(r"(\w+)[=!]", names)}
    assert selected & OF_THE_SCRAPE == ({"namespace"} if engines else set())
    assert filled(query, "team-a", "chat")


def test_all_signals_of_an_operator_are_there() -> None:
    asked = " ".join(query for _, query in expressions())
    for part in (
        "attained_ratio",
        "time_to_first_token_seconds_bucket",
        "inter_token_latency_seconds_bucket",
        "latency_target_seconds",
        "demand_tokens_per_second",
        "forecast_tokens_per_second",
        "current_groups",
        "ready_groups",
        "desired_groups",
        "floor_groups",
        "ratio_limit",
        "waiting_requests",
        "kv_usage_ratio",
        "gpu_budget",
        "steps_total",
        "reasons_total",
        "condition",
        "roleratio_scheduler_verdict",
        "tick_seconds_bucket",
    ):
        assert part in asked, part


def test_the_file_has_no_datasource_of_one_installation() -> None:
    used = re.findall(r'"uid": "([^"]*)"', build.TARGET.read_text(encoding="utf-8"))
    assert set(used) == {"${datasource}", "-- Grafana --", "roleratio-service"}
    assert json.loads(build.text())["title"]
