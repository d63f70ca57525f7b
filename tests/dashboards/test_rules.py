"""Recording and alert rules: what they may select, and by promtool, when each alert fires and when it does not."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from autoscaler.core.conditions import TYPES
from dashboards.panels import ROWS
from tests.dashboards.queries import RULES, rules

SERVICE = 'target_namespace="team-a",target_service="chat"'
OF_THE_SCRAPE = {"namespace", "pod", "service", "container", "job", "instance", "endpoint", "node", "prometheus"}
LENGTH = 120
"""Samples of a series, one a minute."""
AT = "100m"

Labels = dict[str, str]
Inputs = dict[str, str]


def gauge(name: str, value: float | str, **labels: str) -> Inputs:
    """A series of the controller that stays as it is."""
    more = "".join(f',{key}="{label}"' for key, label in labels.items())
    return {f"roleratio_controller_{name}{{{SERVICE}{more}}}": f"{value}x{LENGTH}"}


def condition(kind: str, status: str) -> Inputs:
    """A condition as the controller exports it."""
    return {
        series: values
        for one in ("True", "False", "Unknown")
        for series, values in gauge("condition", f"{int(one == status)}", type=kind, status=one).items()
    }


def finished(failed_per_minute: int) -> Inputs:
    name = "roleratio_router_requests_finished_total"
    return {
        f'{name}{{{SERVICE},outcome="ok"}}': f"0+60x{LENGTH}",
        f'{name}{{{SERVICE},outcome="failed"}}': f"0+{failed_per_minute}x{LENGTH}",
    }


def admitted(count: int) -> Inputs:
    name = f'roleratio_scheduler_groups{{{SERVICE},podgroup="d",role="decode",state='
    return {f'{name}"desired"}}': f"3x{LENGTH}", f'{name}"admitted"}}': f"{count}x{LENGTH}"}


def held(groups: int) -> Inputs:
    shape = gauge("present_groups", groups, role="decode") | gauge("gpus_per_group", 4, role="decode")
    return shape | gauge("gpu_budget", 16)


def attained(share: float) -> Inputs:
    return gauge("attained_ratio", share, objective="ttft") | gauge("attained_target_ratio", 0.95, objective="ttft")


def no_worker(per_minute: int) -> Inputs:
    return {f'roleratio_router_no_worker_total{{{SERVICE},role="decode"}}': f"0+{per_minute}x{LENGTH}"}


def bindings(failed_per_minute: int) -> Inputs:
    return {'roleratio_scheduler_bindings_total{result="failed"}': f"0+{failed_per_minute}x{LENGTH}"}


def last_tick(moves: bool) -> Inputs:
    return gauge("last_tick_timestamp_seconds", "0+60" if moves else "0")


# alert -> (series that fire it, series that do not, the labels that it adds to those of the service)
CASES: dict[str, tuple[Inputs, Inputs, Labels]] = {
    "RoleratioSLOMissed": (attained(0.9), attained(0.96), {"objective": "ttft"}),
    "RoleratioRequestsFailing": (finished(2), finished(0), {}),
    "RoleratioNoWorker": (no_worker(1), no_worker(0), {"role": "decode"}),
    "RoleratioControllerStalled": (last_tick(False), last_tick(True), {}),
    "RoleratioCannotScale": (
        condition("AbleToScale", "False"),
        condition("AbleToScale", "True"),
        {"type": "AbleToScale"},
    ),
    "RoleratioBlind": (condition("Blind", "True"), condition("Blind", "False"), {}),
    "RoleratioScalingLimited": (condition("ScalingLimited", "True"), condition("ScalingLimited", "Unknown"), {}),
    "RoleratioForeignWriter": (condition("ForeignWriter", "True"), condition("ForeignWriter", "False"), {}),
    "RoleratioGroupsWaitForRoom": (admitted(1), admitted(3), {"role": "decode"}),
    "RoleratioOverBudget": (held(5), held(4), {}),
}
OF_NO_SERVICE: dict[str, tuple[Inputs, Inputs]] = {
    "RoleratioControllerAbsent": ({"other": f"1x{LENGTH}"}, last_tick(True)),
    "RoleratioBindingsFail": (bindings(30), bindings(1)),
}


def alerts() -> dict[str, dict[str, str]]:
    """The alerts' own labels, by name."""
    return {rule["alert"]: rule["labels"] for rule in rules() if "alert" in rule}


def firing(alert: str, labels: Labels | None) -> str:
    """The series that says that the alert fires with exactly these labels; nothing for None."""
    if labels is None:
        return "[]"
    every = {"alertname": alert, "alertstate": "firing", **alerts()[alert], **labels}
    inside = ", ".join(f'{key}="{value}"' for key, value in every.items())
    return f"[{{labels: 'ALERTS{{{inside}}}', value: 1}}]"


def check(promtool: str, folder: Path, inputs: Inputs, alert: str, labels: Labels | None) -> None:
    """Let promtool evaluate all rules over the series."""
    query = f'ALERTS{{alertname="{alert}",alertstate="firing"}}'
    expected = {"expr": query, "eval_time": AT, "exp_samples": yaml.safe_load(firing(alert, labels))}
    series = [{"series": name, "values": values} for name, values in inputs.items()]
    case = {"interval": "1m", "input_series": series, "promql_expr_test": [expected]}
    file = folder / "case.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [case]}))
    done = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_finds_no_fault(promtool: str) -> None:
    done = subprocess.run([promtool, "check", "rules", str(RULES)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules())} rules found" in done.stdout


@pytest.mark.parametrize("alert", CASES)
def test_an_alert_fires_for_the_service_and_only_when_it_should(promtool: str, tmp_path: Path, alert: str) -> None:
    bad, good, labels = CASES[alert]
    check(promtool, tmp_path, bad, alert, {"target_namespace": "team-a", "target_service": "chat", **labels})
    check(promtool, tmp_path, good, alert, None)


@pytest.mark.parametrize("alert", OF_NO_SERVICE)
def test_an_alert_about_a_part_fires_only_when_it_should(promtool: str, tmp_path: Path, alert: str) -> None:
    bad, good = OF_NO_SERVICE[alert]
    check(promtool, tmp_path, bad, alert, {})
    check(promtool, tmp_path, good, alert, None)


def test_every_alert_has_a_case_and_says_what_to_do() -> None:
    assert alerts().keys() == CASES.keys() | OF_NO_SERVICE.keys()
    for rule in rules():
        if "alert" in rule:
            assert rule["labels"]["severity"] in ("critical", "warning", "info")
            assert rule["annotations"].keys() == {"summary", "description"}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_rules_use_no_label_of_the_scrape_and_no_bound_of_a_bucket(rule: dict[str, str]) -> None:
    query = rule["expr"]
    labels = {name for names in re.findall(r"(?:by|on) \(([^)]*)\)", query) for name in re.split(r",\s*", names)}
    labels |= {name for names in re.findall(r"\{([^}]*)\}", query) for name in re.findall(r"(\w+)[=!]", names)}
    assert not labels & OF_THE_SCRAPE
    assert not re.search(r"\ble\s*(=|!)", query)


def test_conditions_are_those_that_the_controller_has() -> None:
    named = {
        kind for rule in rules() for found in re.findall(r'type=~?"([^"]*)"', rule["expr"]) for kind in found.split("|")
    }
    assert named
    assert named <= set(TYPES)


def test_panels_need_no_recording_rule() -> None:
    recorded = [rule["record"] for rule in rules() if "record" in rule]
    asked = " ".join(query.expr for row in ROWS for panel in row.panels for query in panel.queries)
    assert recorded
    assert not [name for name in recorded if name in asked]
