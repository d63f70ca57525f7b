"""Nodes for somebody else's cluster: which pods they run, what they look like, what is left of them."""

from __future__ import annotations

import copy
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from kubeapi import names
from kubeapi.config import Config
from kubeapi.kinds import LEASE, LWS, NODE, POD
from kubeapi.kinds import NAMESPACE as NAMESPACE_KIND
from localcluster.agent.admission import refusal
from localcluster.controllers import controllers
from localcluster.nodes import nodes_of
from localcluster.objects import is_ready, seconds
from localcluster.options import GuestOptions
from localcluster.run import agent_for
from tests.localcluster.living import SLEEP, Object, Seen, eventually, lws_of, pod_of

NS = "guests"
CONTAINER = {
    "name": "worker",
    "image": "i",
    "command": ["python", "-m", "roleratio"],
    "args": ["serve", "router", "--service", "guests/demo"],
    "env": [{"name": "POD_NAME", "value": "n"}, {"name": "LWS_GROUP_SIZE", "value": "2"}],
    "readinessProbe": {"httpGet": {"path": "/ready", "port": 8000}},
    "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets"}],
}
OURS: Object = {
    "metadata": {"name": "p", "namespace": NS, "labels": {names.DEMO: NS}},
    "spec": {"containers": [CONTAINER]},
}


def changed(change: Callable[[Object, Object], None]) -> Object:
    """Our pod after a change of (pod, its container)."""
    pod = copy.deepcopy(OURS)
    change(pod, pod["spec"]["containers"][0])
    return pod


def test_our_own_pod_is_run() -> None:
    assert refusal(OURS, NS) is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda pod, c: pod["metadata"].update(namespace="other"), "runs pods of namespace guests alone"),
        (lambda pod, c: pod["metadata"].pop("labels"), "the label roleratio.dev/demo=guests alone"),
        (lambda pod, c: pod["metadata"]["labels"].update({names.DEMO: "other"}), "the label roleratio.dev/demo=guests"),
        (lambda pod, c: pod["spec"].update(initContainers=[c]), "no init containers"),
        (lambda pod, c: pod["spec"]["containers"].append({"name": "b", "command": ["sh"]}), "container b: .*not `sh`"),
        (lambda pod, c: c.pop("command"), "container worker: this node runs `python -m roleratio serve` alone"),
        (lambda pod, c: c.update(command=["python", "-c"]), "not `python -c serve router`"),
        (lambda pod, c: c.update(args=["demo"]), "not `python -m roleratio demo`"),
        (lambda pod, c: c["env"].append({"name": "PYTHONPATH", "value": "/x"}), "variable 'PYTHONPATH' is refused"),
        (lambda pod, c: c["env"].append({"name": "POD_X\n", "value": "/x"}), r"variable 'POD_X\\n' is refused"),
        (lambda pod, c: c.update(workingDir="/tmp"), "workingDir is refused"),
        (lambda pod, c: c.update(lifecycle={"preStop": {}}), "lifecycle is refused"),
        (lambda pod, c: c.update(envFrom=[{}]), "envFrom is refused"),
        (lambda pod, c: c.update(livenessProbe={"exec": {"command": ["sh"]}}), "livenessProbe is refused"),
        (lambda pod, c: c["readinessProbe"]["httpGet"].update(host="10.0.0.1"), "readinessProbe is refused"),
        (lambda pod, c: c.update(startupProbe={"tcpSocket": {"port": 1, "host": "h"}}), "startupProbe is refused"),
    ],
)
def test_whatever_else_is_refused_with_the_reason(change: Callable[[Object, Object], None], why: str) -> None:
    line = refusal(changed(change), NS)
    assert line is not None
    assert re.search(why, line)
    assert "\n" not in line


def options(tmp_path: Path, **more: Any) -> GuestOptions:
    return GuestOptions(state_dir=tmp_path, kubeconfig=tmp_path / "kubeconfig", namespace=NS, nodes=2, **more)


def test_a_guests_nodes_are_marked_and_share_no_place_with_the_hosts(tmp_path: Path) -> None:
    first, second = nodes_of(options(tmp_path))
    assert [first["metadata"]["name"], second["metadata"]["name"]] == ["guests-0", "guests-1"]
    assert first["spec"]["taints"] == [{"key": names.DEMO, "effect": "NoSchedule"}]
    assert first["metadata"]["labels"][names.DEMO] == NS
    assert first["metadata"]["labels"][names.TOPOLOGY_RACK] == "guests.zone-0.block-0.rack-0"


@pytest.fixture
async def host(api: Any, tmp_path: Path) -> AsyncIterator[Seen]:
    """A cluster with controllers of its own, and our nodes in it."""
    await api.client.create(NAMESPACE_KIND, {"metadata": {"name": NS}})
    config = Config(api.url)
    async with controllers(config), agent_for(config, options(tmp_path, lws_controller=False)):
        yield Seen(api.client)


async def test_the_nodes_live_by_their_leases(host: Seen) -> None:
    nodes = (await host.client.list(NODE)).items
    assert len(nodes) == 2
    assert all(map(is_ready, nodes))
    for node in nodes:
        name = node["metadata"]["name"]
        lease = await host.client.get(LEASE, name, names.NODE_LEASES)
        assert lease["spec"]["holderIdentity"] == name
        assert seconds(lease["spec"]["renewTime"]) >= seconds(node["metadata"]["creationTimestamp"])
        await host.client.delete(NODE, name)

    async def no_lease() -> bool:
        return not (await host.client.list(LEASE, names.NODE_LEASES)).items

    await eventually(no_lease)


async def test_a_node_that_was_tainted_as_not_ready_takes_pods_once_it_is(api: Any, tmp_path: Path) -> None:
    chosen = options(tmp_path, lws_controller=False)
    node = nodes_of(chosen)[0]
    node["spec"]["taints"].append({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"})
    await api.client.create(NODE, node)
    async with agent_for(Config(api.url), chosen):
        taints = (await api.client.get(NODE, "guests-0"))["spec"]["taints"]
        assert taints == [{"key": names.DEMO, "effect": "NoSchedule"}]


async def test_a_foreign_pod_on_our_node_fails_with_the_reason_and_can_be_deleted(host: Seen) -> None:
    pod = pod_of("stray", SLEEP)
    pod["spec"]["nodeName"] = "guests-1"
    await host.client.create(POD, pod, "default")

    async def failed() -> Object | None:
        now = await host.pod("stray")
        return now if now and now["status"]["phase"] == "Failed" else None

    status = (await eventually(failed))["status"]
    assert status["reason"] == "NodeAdmission"
    assert status["message"] == "Pod was rejected: this node runs pods of namespace guests alone"
    assert "podIP" not in status

    async def told() -> bool:
        return ("NodeAdmission", "this node runs pods of namespace guests alone") in await host.events("stray")

    await eventually(told)
    await host.client.delete(POD, "stray", "default")
    await host.ready()


async def test_the_hosts_scheduler_leaves_our_nodes_alone(host: Seen) -> None:
    await host.client.create(POD, pod_of("theirs", SLEEP), "default")

    async def waits() -> bool:
        return any(reason == "FailedScheduling" for reason, _ in await host.events("theirs"))

    await eventually(waits)
    theirs = await host.pod("theirs")
    assert theirs is not None
    assert "nodeName" not in theirs["spec"]


async def test_our_lws_controller_works_in_its_namespace_alone(api: Any, tmp_path: Path) -> None:
    await api.client.create(NAMESPACE_KIND, {"metadata": {"name": NS}})
    async with agent_for(Config(api.url), options(tmp_path)):
        for namespace in ("default", NS):
            body = lws_of("dec", 1, 2, SLEEP)
            body["metadata"]["namespace"] = namespace
            await api.client.create(LWS, body, namespace)

        async def made() -> list[Object]:
            return (await api.client.list(POD, NS)).items or False

        assert {pod["metadata"]["name"] for pod in await eventually(made)} <= {"dec-0", "dec-0-1"}
        assert (await api.client.list(POD, "default")).items == []
