"""The whole demo on the real control plane: served, scaled, and nothing left behind."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from kubeapi import kinds
from kubeapi.client import KubeClient
from roleratio.demo.guest import guest
from roleratio.demo.manifests import NAMESPACE
from tests.controlplane.plane import ControlPlane
from tests.roleratio.test_demo import children_of, command

pytestmark = [pytest.mark.demo, pytest.mark.timeout(300)]

KINDS = "namespaces,nodes,leases,pods,deployments,replicasets,podgroups,customresourcedefinitions"

STRAY = "stray"


def contents(control_plane: ControlPlane) -> set[str]:
    """What is there that a demo might leave. Other tests' namespaces may be on their way out."""
    listed = control_plane.kubectl(
        "get", KINDS, "--all-namespaces", "--output=jsonpath={range .items[*]}{.kind} {.metadata.name}{'\\n'}{end}"
    )
    return {line for line in listed.splitlines() if " test-" not in line}


def test_a_short_run_scales_refuses_a_stray_pod_and_leaves_nothing_behind(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    before = contents(control_plane)
    report = tmp_path / "out"
    options = ("--kubeconfig", str(control_plane.kubeconfig), "--duration-s", "12", "--cold-start-s", "2")
    with subprocess.Popen(command(report, *options), stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        assert any("first request served" in line for line in demo.stdout)
        a_pod_of_somebody_else_fails(control_plane, namespace)
        rest = demo.stdout.read()
        assert demo.wait(120) == 0, rest
    assert f"deleting what the demo made in {control_plane.url}" in rest
    found = json.loads((report / "report.json").read_text())
    assert found["requests_failed"] == 0
    assert found["requests_ok"] == found["requests_sent"] > 30
    grown = [event for event in found["scale_events"] if event["to"] > event["from"]]
    shrunk = [event for event in found["scale_events"] if event["to"] < event["from"]]
    assert grown
    assert shrunk
    assert {event["by"] for event in found["scale_events"]} == {"roleratio-controller"}
    assert found["min_count_patches"] > 0
    assert {line for line in contents(control_plane) - before if line != f"Pod {STRAY}"} == set()
    assert children_of(report) == []


def a_pod_of_somebody_else_fails(control_plane: ControlPlane, namespace: str) -> None:
    """On the demo's own node, from a namespace that is not the demo's."""
    spec = {"nodeName": f"{NAMESPACE}-1", "containers": [{"name": "c", "image": "i", "command": ["sleep", "9"]}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": STRAY}, "spec": spec}
    control_plane.kubectl("create", "--namespace", namespace, "--filename=-", stdin=json.dumps(pod))
    reason = ("wait", "--for=jsonpath={.status.reason}=NodeAdmission", f"pod/{STRAY}", "--timeout=20s")
    control_plane.kubectl(*reason, "--namespace", namespace)
    events = control_plane.kubectl("events", "--namespace", namespace, f"--for=pod/{STRAY}")
    assert f"this node runs pods of namespace {NAMESPACE} alone" in events


async def test_a_cluster_with_leaderworkerset_installed_keeps_its_controller(admin: KubeClient) -> None:
    resources = {"apiGroups": [kinds.LWS.group], "apiVersions": ["v1"], "resources": [kinds.LWS.plural]}
    hook = {
        "name": "validate.leaderworkersets.example",
        "clientConfig": {"url": "https://127.0.0.1:1/validate"},
        "rules": [resources | {"operations": ["CREATE"]}],
        "failurePolicy": "Ignore",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    name = "test-lws-installed"
    await admin.create(kinds.VALIDATING_WEBHOOK, {"metadata": {"name": name}, "webhooks": [hook]})
    try:
        async with guest(admin.config, lambda line: None) as ours:
            assert not ours.lws_controller
    finally:
        await admin.delete(kinds.VALIDATING_WEBHOOK, name)
