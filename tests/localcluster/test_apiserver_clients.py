"""Unmodified clients against the API server: kubectl as a process, and the official Python client."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client as official
from kubernetes import config as official_config
from kubernetes import watch as official_watch
from kubernetes.client.exceptions import ApiException

KUBECTL = Path(sys.executable).with_name("kubectl")

MANIFEST = """
apiVersion: v1
kind: Node
metadata: {name: n0, labels: {topology.kubernetes.io/zone: z}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: router}
spec:
  selector: {matchLabels: {app: router}}
  template:
    metadata: {labels: {app: router}}
    spec:
      containers: [{name: c, image: i, env: [{name: A, value: "1"}, {name: B, value: "2"}]}]
---
apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
metadata: {name: decode}
spec:
  replicas: 2
  leaderWorkerTemplate:
    size: 2
    workerTemplate: {spec: {containers: [{name: c, image: i}]}}
---
apiVersion: scheduling.k8s.io/v1beta1
kind: PodGroup
metadata: {name: decode}
spec: {schedulingPolicy: {gang: {minCount: 2}}}
---
apiVersion: v1
kind: Pod
metadata: {name: p0, labels: {a: b}}
spec: {containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Service
metadata: {name: router}
spec: {ports: [{port: 80}], selector: {app: router}}
---
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: leader}
spec: {holderIdentity: me, leaseDurationSeconds: 15}
---
apiVersion: roleratio.dev/v1alpha1
kind: RoleRatioAutoscaler
metadata: {name: chat}
spec: {mode: auto}
---
apiVersion: v1
kind: Event
metadata: {name: p0.1}
involvedObject: {kind: Pod, name: p0, namespace: default}
reason: FailedScheduling
message: 0/1 groups fit
type: Warning
"""


class Kubectl:
    """Runs kubectl against one server, as a user would."""

    def __init__(self, kubeconfig: Path, home: Path) -> None:
        self._environment = {"KUBECONFIG": str(kubeconfig), "HOME": str(home), "PATH": "/usr/bin:/bin"}

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            str(KUBECTL), *arguments, stdin=pipe, stdout=pipe, stderr=pipe, env=self._environment
        )

    async def fails(self, *arguments: str, stdin: str = "") -> str:
        process = await self.start(*arguments)
        _, error = await asyncio.wait_for(process.communicate(stdin.encode()), 30)
        assert process.returncode != 0
        return error.decode()

    async def __call__(self, *arguments: str, stdin: str = "") -> str:
        process = await self.start(*arguments)
        out, error = await asyncio.wait_for(process.communicate(stdin.encode()), 30)
        assert process.returncode == 0, error.decode()
        return out.decode()

    async def get(self, *arguments: str) -> Any:
        return json.loads(await self("get", *arguments, "-o", "json", "--show-managed-fields"))


@pytest.fixture
async def kubectl(api: Any, tmp_path: Path) -> Kubectl:
    run = Kubectl(api.kubeconfig, tmp_path)
    await run("apply", "-f", "-", stdin=MANIFEST)
    return run


async def test_apply_is_idempotent_and_merges(kubectl: Kubectl) -> None:
    again = await kubectl("apply", "-f", "-", stdin=MANIFEST)
    assert [line.rsplit(" ", 1)[1] for line in again.splitlines()] == ["unchanged"] * 9
    changed = MANIFEST.replace('{name: A, value: "1"}', '{name: A, value: "9"}').replace("size: 2", "size: 3")
    again = await kubectl("apply", "-f", "-", stdin=changed)
    assert again.count("configured") == 2
    deployment = await kubectl.get("deploy", "router")
    env = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    assert env == [{"name": "A", "value": "9"}, {"name": "B", "value": "2"}]
    dropped = MANIFEST.replace(', {name: B, value: "2"}', "")
    await kubectl("apply", "-f", "-", stdin=dropped)
    deployment = await kubectl.get("deploy", "router")
    assert deployment["spec"]["template"]["spec"]["containers"][0]["env"] == [{"name": "A", "value": "1"}]


async def test_get_prints_the_tables_of_a_real_cluster(kubectl: Kubectl) -> None:
    text = await kubectl("get", "nodes,pods,lws,podgroups,deploy,svc,events,leases,rra", "-o", "wide")
    lines = text.splitlines()
    assert any(line.split()[:3] == ["pod/p0", "0/1", "Pending"] for line in lines)
    assert any(line.split()[:2] == ["node/n0", "NotReady"] for line in lines)
    assert "CONTAINERS   IMAGES   SELECTOR" in text
    assert any("FailedScheduling" in line and "pod/p0" in line for line in lines)
    assert len([line for line in lines if line.startswith(("NAME ", "LAST SEEN "))]) == 9
    pods = await kubectl("get", "pods", "-l", "a=b", "--no-headers", "-o", "name")
    assert pods == "pod/p0\n"
    columns = "custom-columns=N:.metadata.name,R:.spec.replicas"
    assert (await kubectl("get", "lws", "-o", columns)).split() == ["N", "R", "decode", "2"]
    assert "kind: RoleRatioAutoscaler" in await kubectl("get", "rra", "chat", "-o", "yaml")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("node/n0", "topology.kubernetes.io/zone=z"),
        ("pod/p0", "QoS Class:        BestEffort"),
        ("deploy/router", "RollingUpdateStrategy:  25% max unavailable, 25% max surge"),
        ("lws/decode", "Size:            2"),
        ("podgroup/decode", "Min Count:  2"),
        ("svc/router", "80/TCP"),
        ("ns/default", "Status:       Active"),
    ],
)
async def test_describe(kubectl: Kubectl, what: str, words: str) -> None:
    assert words in await kubectl("describe", what)


async def test_describe_shows_events(kubectl: Kubectl) -> None:
    uid = (await kubectl.get("pod", "p0"))["metadata"]["uid"]
    about = json.dumps({"involvedObject": {"uid": uid}})
    await kubectl("patch", "event/p0.1", "-p", about)
    assert "FailedScheduling" in await kubectl("describe", "pod/p0")


async def test_scale_patch_label_annotate(kubectl: Kubectl) -> None:
    await kubectl("scale", "lws/decode", "--replicas=3")
    await kubectl("scale", "deploy/router", "--replicas=2", "--current-replicas=1")
    await kubectl("label", "pod/p0", "x=y")
    await kubectl("annotate", "lws/decode", "roleratio.dev/paused=all")
    lws = await kubectl.get("lws", "decode")
    assert lws["spec"]["replicas"] == 3
    assert lws["metadata"]["annotations"]["roleratio.dev/paused"] == "all"
    scaled = [entry for entry in lws["metadata"]["managedFields"] if entry.get("subresource") == "scale"]
    assert [(entry["manager"], entry["fieldsV1"]) for entry in scaled] == [("kubectl", {"f:spec": {"f:replicas": {}}})]
    image = '{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"j"}]}}}}'
    await kubectl("patch", "deploy/router", "-p", image)
    await kubectl("patch", "lws/decode", "--type=json", "-p", '[{"op":"replace","path":"/spec/replicas","value":1}]')
    minimum = '{"spec":{"schedulingPolicy":{"gang":{"minCount":%d}}}}'
    await kubectl("patch", "podgroup/decode", "--type=merge", "-p", minimum % 4)
    refused = await kubectl.fails("patch", "podgroup/decode", "--type=merge", "-p", minimum % 0)
    assert "spec.schedulingPolicy.gang.minCount: Required value" in refused
    deployment = await kubectl.get("deploy", "router")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert (container["image"], len(container["env"])) == ("j", 2)
    assert (await kubectl.get("lws", "decode"))["spec"]["replicas"] == 1
    assert (await kubectl.get("podgroup", "decode"))["spec"]["schedulingPolicy"]["gang"]["minCount"] == 4


async def test_watch_streams_rows(kubectl: Kubectl) -> None:
    process = await kubectl.start("get", "pods", "--watch")
    try:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            assert (await process.stdout.readline()).split()[0] == b"NAME"
            assert (await process.stdout.readline()).split()[:3] == [b"p0", b"0/1", b"Pending"]
            await kubectl("label", "pod/p0", "seen=yes")
            assert (await process.stdout.readline()).split()[:3] == [b"p0", b"0/1", b"Pending"]
    finally:
        process.terminate()
        await process.wait()


async def test_delete_wait_and_logs(api: Any, kubectl: Kubectl) -> None:
    (api.log_dir / "default_p0_c.log").write_text("one\ntwo\n")
    assert await kubectl("logs", "p0", "--tail=1") == "two\n"
    await kubectl("delete", "pod/p0", "lws/decode")
    await kubectl("delete", "deploy/router", "--cascade=orphan")
    assert "NotFound" in await kubectl.fails("get", "pod", "p0")
    await kubectl("create", "-f", "-", stdin="{apiVersion: v1, kind: Namespace, metadata: {name: team}}")
    await kubectl("delete", "namespace", "team")
    assert "team" not in await kubectl("get", "ns")


async def test_what_is_not_served_says_so(kubectl: Kubectl) -> None:
    refused = await kubectl.fails("apply", "--server-side", "-f", "-", stdin=MANIFEST)
    assert "does not serve server-side apply" in refused
    assert "pods/p0/exec not found" in await kubectl.fails("exec", "p0", "--", "true")


async def test_the_official_python_client(api: Any, kubectl: Kubectl) -> None:
    settings = official.Configuration()
    official_config.load_kube_config(config_file=str(api.kubeconfig), client_configuration=settings)

    def use() -> None:
        with official.ApiClient(settings) as session:
            core, apps = official.CoreV1Api(session), official.AppsV1Api(session)
            container = official.V1Container(name="c", image="i")
            spec = official.V1PodSpec(containers=[container])
            meta = official.V1ObjectMeta(generate_name="w-", labels={"k": "v"})
            made = core.create_namespaced_pod("default", official.V1Pod(metadata=meta, spec=spec))
            assert made.status.phase == "Pending"
            assert made.metadata.managed_fields[0].manager == "OpenAPI-Generator"
            listed = core.list_namespaced_pod("default", label_selector="k=v")
            assert [item.metadata.name for item in listed.items] == [made.metadata.name]
            apps.patch_namespaced_deployment_scale("router", "default", {"spec": {"replicas": 4}})
            assert apps.read_namespaced_deployment_scale("router", "default").spec.replicas == 4
            events = official_watch.Watch().stream(core.list_namespaced_pod, "default", timeout_seconds=1)
            assert {event["type"] for event in events} == {"ADDED"}
            custom = official.CustomObjectsApi(session)
            group = ("leaderworkerset.x-k8s.io", "v1", "default", "leaderworkersets")
            body = {"spec": {"replicas": 5}}
            assert custom.patch_namespaced_custom_object_scale(*group, "decode", body)["spec"]["replicas"] == 5
            core.delete_namespaced_pod(made.metadata.name, "default")
            with pytest.raises(ApiException) as gone:
                core.read_namespaced_pod(made.metadata.name, "default")
            assert gone.value.status == 404
            assert official.VersionApi(session).get_code().git_version.startswith("v1.37.")

    await asyncio.to_thread(use)
