"""Settings: every problem at once, one line each, with key, value and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoscaler.errors import UserError
from autoscaler.settings import Mode, load_settings
from policies.model import Role

GOOD = """
apiVersion: roleratio.dev/v1alpha1
kind: RoleRatioAutoscaler
metadata: {name: demo, namespace: ns}
spec:
  service: demo
  profile: qwen3-32b-a100-tp2
  gpuBudget: 16
  slo: {ttft: {percentile: 95, targetMs: 2000}, itl: {targetMs: 60}}
  decode: {maxGroups: 6, maxNumSeqs: 16}
"""


def load(tmp_path: Path, text: str) -> object:
    path = tmp_path / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return load_settings(path)


def test_a_good_file(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(GOOD, encoding="utf-8")
    settings = load_settings(path)
    assert settings.spec.decode.max_groups == 6
    assert settings.spec.slo.itl.percentile == 95


def test_three_mistakes_are_three_lines(tmp_path: Path) -> None:
    text = GOOD.replace("gpuBudget: 16", "gpuBudget: 0").replace("targetMs: 60", "targetMS: 60").replace("6,", "0,")
    with pytest.raises(UserError) as raised:
        load(tmp_path, text)
    lines = "\n".join(raised.value.problems)
    assert "spec.gpuBudget: 0: " in lines
    assert "spec.slo.itl.targetMS: unknown key" in lines
    assert "spec.decode.maxGroups: 0: " in lines


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "expected a RoleRatioAutoscaler object"),
        ("a: [", "not YAML"),
        (GOOD.replace("kind: RoleRatioAutoscaler", "kind: Deployment"), "kind: 'Deployment'"),
        (GOOD.replace("  gpuBudget: 16\n", ""), "spec.gpuBudget: required"),
        (GOOD + "  ratioBand: {min: 3, max: 1}\n", "min 3 is above max 1"),
        (GOOD + "  syncPeriodS: 1\n", "scrapeTimeoutS 2 is not below syncPeriodS 1: lower it"),
        (GOOD + "  prefill: {minGroups: 9}\n", "spec.prefill: minGroups 9 is above maxGroups 8: raise maxGroups"),
        (
            GOOD + "  prefill: {minGroups: 8}\n  gpuBudget: 8\n",
            "gpuBudget 8 cannot hold prefill.minGroups 8 and decode",
        ),
        (GOOD + "  prefill: {scaleUp: {tolerance: -1}}\n", "spec.prefill.scaleUp.tolerance: -1: "),
        (
            GOOD + "  prefill: {scaleUp: {policies: [{type: Pods, value: 1, periodS: 60}]}}\n",
            "spec.prefill.scaleUp.policies.0.type: 'Pods': input should be 'Percent' or 'Groups'",
        ),
        (
            GOOD + "  prefill: {scaleDown: {policies: [{type: Groups, value: 0, periodS: 60}]}}\n",
            "spec.prefill.scaleDown.policies.0.value: 0: ",
        ),
        (
            GOOD + "  prefill: {scaleDown: {selectPolicy: Least}}\n",
            "selectPolicy: 'Least': input should be 'Max', 'Min'",
        ),
        (GOOD + "  prefill: {scaleDownStabilizationS: 60}\n", "prefill.scaleDownStabilizationS: unknown key"),
        (
            GOOD + "  capacity: {mode: elastic}\n",
            "capacity.mode: 'elastic': input should be 'fixed' or 'provisionable'",
        ),
        (GOOD + "  capacity: {provisionTimeoutS: 0}\n", "capacity.provisionTimeoutS: 0: "),
        (GOOD + "  mode: live\n", "spec.mode: 'live': input should be 'Off', 'DryRun' or 'Active'"),
        (GOOD + "  manualHoldS: .inf\n", "spec.manualHoldS: inf: input should be a finite number"),
        (GOOD + "  metrics: {prometheusUrl: prom}\n", "spec.metrics.prometheusUrl: 'prom'"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(UserError, match=part.replace("[", r"\[")):
        load(tmp_path, text)


def test_a_shrink_waits_for_half_a_measured_cold_start_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(GOOD + "  prefill: {scaleDown: {stabilizationS: 0}}\n", encoding="utf-8")
    spec = load_settings(path).spec
    assert spec.prefill.behaviour(70.0).down.window_s == 0.0
    assert (spec.decode.behaviour(70.0).up.window_s, spec.decode.behaviour(70.0).down.window_s) == (0.0, 35.0)
    assert spec.decode.behaviour(70.0).up.rates == ()


@pytest.mark.parametrize(
    ("role", "cold_start_s", "silence_s"),
    [("{}", 70.0, 300.0), ("{}", 200.0, 400.0), ("{scaleDown: {stabilizationS: 600}}", 70.0, 600.0)],
)
def test_a_silence_that_ends_memory_is_never_shorter_than_the_window(
    role: str, cold_start_s: float, silence_s: float, tmp_path: Path
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(GOOD + f"  prefill: {role}\n", encoding="utf-8")
    prefill = load_settings(path).spec.prefill
    assert prefill.silence_s(cold_start_s) == silence_s >= prefill.behaviour(cold_start_s).down.window_s


def test_the_share_of_the_work_to_cover_is_the_percentile_unless_given(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    text = GOOD.replace("percentile: 95", "percentile: 99").replace("itl: {", "itl: {percentile: 90, ")
    path.write_text(text, encoding="utf-8")
    assert [load_settings(path).spec.covered(role) for role in Role] == [0.99, 0.9]
    path.write_text(text + "  forecastQuantile: 0.8\n", encoding="utf-8")
    assert [load_settings(path).spec.covered(role) for role in Role] == [0.8, 0.8]


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml: cannot be read: No such file"):
        load_settings(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("mode", "writes", "as_dry_run"), [("Off", False, "Off"), ("DryRun", False, "DryRun"), ("Active", True, "DryRun")]
)
def test_only_active_writes_and_a_dry_run_never(mode: str, writes: bool, as_dry_run: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(GOOD + f"  mode: {mode!r}\n", encoding="utf-8")
    settings = load_settings(path)
    assert settings.spec.writes is writes
    dry = settings.without_writes()
    assert dry.spec.mode == as_dry_run
    assert not dry.spec.writes


def test_nothing_moves_unless_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(GOOD, encoding="utf-8")
    assert load_settings(path).spec.mode is Mode.DRY_RUN
