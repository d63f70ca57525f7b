"""The demo in somebody else's cluster: a second embedded one here, a real control plane in tests/apiserver."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from autoscaler.errors import UserError
from kubeapi import kinds, names
from kubeapi.client import KubeClient
from kubeapi.config import Config
from kubeapi.kinds import Kind
from localcluster.agent.admission import refusal
from localcluster.apiserver import ApiServer, request
from localcluster.controllers import controllers
from localcluster.controllers.lws import plan_lws
from localcluster.nodes import lease_of
from localcluster.objects import micro_timestamp
from roleratio.cli import main
from roleratio.demo import manifests
from roleratio.demo.children import DemoError
from roleratio.demo.guest import check_server, guest
from roleratio.demo.manifests import NAMESPACE, Shape
from tests.roleratio.test_demo import children_of, command

Object = dict[str, Any]
KINDS: tuple[Kind, ...] = (
    kinds.NAMESPACE,
    kinds.NODE,
    kinds.LEASE,
    kinds.POD,
    kinds.REPLICASET,
    kinds.DEPLOYMENT,
    kinds.LWS,
    kinds.PODGROUP,
)


async def contents(client: KubeClient) -> set[tuple[str, str, str]]:
    """Every object in the cluster but events: kind, namespace, name."""
    found = set()
    for kind in KINDS:
        for item in (await client.list(kind)).items:
            found.add((kind.kind, item["metadata"].get("namespace", ""), item["metadata"]["name"]))
    return found


# --- what is applied ---


def test_a_guests_pods_run_on_the_demos_nodes_alone_and_are_what_these_admit() -> None:
    applied = manifests.guest_objects(Shape())
    assert [kind for kind, _ in applied] == [*[kinds.PODGROUP] * 2, *[kinds.LWS] * 2, kinds.DEPLOYMENT]
    for kind, body in applied:
        if kind is kinds.LWS:
            for pod in groups_of(body):
                assert pod["spec"]["nodeSelector"] == manifests.MARK
                assert pod["spec"]["tolerations"] == [{"key": names.DEMO, "operator": "Exists", "effect": "NoSchedule"}]
                assert refusal(pod, NAMESPACE) is None
        if kind is kinds.DEPLOYMENT:
            template = body["spec"]["template"]
            pod = template | {"metadata": template["metadata"] | {"namespace": NAMESPACE}}
            assert refusal(pod, NAMESPACE) is None
            assert pod["spec"]["schedulerName"] == names.SCHEDULER_NAME
            assert names.DEMO not in body["spec"]["selector"]["matchLabels"]


def groups_of(body: Object) -> list[Object]:
    lws = body | {"metadata": body["metadata"] | {"uid": "u"}}
    (create, *_) = plan_lws(lws, [], "2026-01-01T00:00:00Z")
    return [create.body, *create.dependents]  # type: ignore[union-attr]


def test_at_home_nothing_of_this_is_applied() -> None:
    assert names.DEMO not in str(manifests.objects(Shape()))


# --- which server ---


@pytest.mark.parametrize(
    "server", ["https://127.0.0.1:6443", "http://127.9.9.9", "https://localhost", "https://[::1]:1"]
)
def test_a_server_on_this_machine_needs_no_yes(server: str) -> None:
    check_server(Config(server), yes=False)


@pytest.mark.parametrize("server", ["https://10.0.0.1:6443", "https://localhost.example", "https://api.example:6443"])
def test_any_other_has_to_be_meant(server: str) -> None:
    with pytest.raises(UserError, match=r"is not on this machine; .* give --yes if that is meant"):
        check_server(Config(server), yes=False)
    check_server(Config(server), yes=True)


def kubeconfig_for(server: str, path: Path) -> Path:
    path.write_text(
        f"""{{apiVersion: v1, kind: Config, current-context: c,
        clusters: [{{name: c, cluster: {{server: "{server}"}}}}],
        contexts: [{{name: c, context: {{cluster: c, user: c}}}}], users: [{{name: c, user: {{}}}}]}}"""
    )
    return path


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--yes"], "--yes: only with --kubeconfig"),
        (["--kubeconfig", "FILE", "--kubeconfig-out", "new"], "--kubeconfig-out new with --kubeconfig"),
        (["--kubeconfig", "none"], "no usable kubeconfig at none"),
        (["--kubeconfig", "REMOTE"], "http://192.0.2.1:1 is not on this machine"),
        (["--kubeconfig", "FILE"], "the API server does not answer: GET http://127.0.0.1:1/version"),
    ],
)
def test_what_cannot_work_is_one_line_before_anything_starts(
    words: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kubeconfig_for("http://127.0.0.1:1", tmp_path / "FILE")
    kubeconfig_for("http://192.0.2.1:1", tmp_path / "REMOTE")
    assert main(["demo", "--headless", *words]) == 2
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--namespace", "a"], "--namespace a without --kubeconfig"),
        (["--lws-controller"], "--lws-controller without --kubeconfig"),
        (["--kubeconfig", "f", "--namespace", "a", "--port", "1"], "--port 1 with --kubeconfig"),
        (["--kubeconfig", "f", "--namespace", "a", "--kubeconfig-out", "g"], "--kubeconfig-out g with --kubeconfig"),
        (["--kubeconfig", "f"], "--kubeconfig without --namespace"),
    ],
)
def test_options_of_nodes_and_of_a_cluster_do_not_mix(
    words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["localcluster", *words]) == 2
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1


def test_nodes_for_a_server_that_does_not_answer_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kubeconfig_for("http://127.0.0.1:1", tmp_path / "FILE")
    assert main(["localcluster", "--kubeconfig", "FILE", "--namespace", "a", "--lws-controller"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("roleratio localcluster: the cluster cannot be read: POST http://127.0.0.1:1/")


# --- coming and going ---


@asynccontextmanager
async def host() -> AsyncIterator[KubeClient]:
    """A cluster with controllers and nothing in it."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(ApiServer())
        config = Config(server.url)
        await stack.enter_async_context(controllers(config))
        yield await stack.enter_async_context(KubeClient(config, field_manager="test"))


def ignore(line: str) -> None:
    """Nobody listens."""


async def test_leaving_deletes_what_was_made_also_what_holds_on() -> None:
    async with host() as client:
        before = await contents(client)
        said: list[str] = []
        async with guest(client.config, said.append) as ours:
            assert not ours.lws_controller, "the embedded cluster has its own"
            for kind, body in manifests.guest_objects(Shape()):
                await client.create(kind, body, NAMESPACE)
            await leftover_node(client, renewed_s=time.time())
            while len((await client.list(kinds.POD, NAMESPACE)).items) < 5:
                await asyncio.sleep(0.02)
            # A bound pod whose node agent is gone stays until somebody says that its processes are.
            binding = {"apiVersion": "v1", "kind": "Binding", "target": {"kind": "Node", "name": "gone"}}
            body = binding | {"metadata": {"name": "prefill-0", "namespace": NAMESPACE}}
            await client.create_sub(kinds.POD, "prefill-0", NAMESPACE, "binding", body)
            assert len(await contents(client)) > len(before) + 10
        assert await contents(client) == before
        assert said[0] == f"deleting what the demo made in {client.config.server}"
        assert said[-1] == "deleted: the demo's namespace, nodes, leases and CRDs"


async def test_an_error_and_a_cancellation_leave_nothing_either() -> None:
    async with host() as client:
        before = await contents(client)
        with pytest.raises(DemoError, match="router"):
            async with guest(client.config, ignore):
                raise DemoError("no router")
        assert await contents(client) == before

        inside = asyncio.Event()

        async def stay() -> None:
            async with guest(client.config, ignore):
                inside.set()
                await asyncio.sleep(60)

        task = asyncio.create_task(stay())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await contents(client) == before


async def test_a_namespace_that_is_not_the_demos_is_refused_and_kept() -> None:
    async with host() as client:
        await client.create(kinds.NAMESPACE, {"metadata": {"name": NAMESPACE}})
        before = await contents(client)
        with pytest.raises(UserError, match="namespace roleratio-demo is there and is not a demo's"):
            async with guest(client.config, ignore):
                pass
        assert await contents(client) == before


async def leftover_node(client: KubeClient, renewed_s: float) -> None:
    node = {"metadata": {"name": f"{NAMESPACE}-0", "labels": manifests.MARK}, "spec": {}}
    lease = lease_of(await client.create(kinds.NODE, node), micro_timestamp(renewed_s))
    await client.create(kinds.LEASE, lease, names.NODE_LEASES)


async def test_a_running_demo_is_left_alone_and_a_killed_ones_remains_are_cleared() -> None:
    async with host() as client:
        before = await contents(client)
        await client.create(kinds.NAMESPACE, manifests.guest_namespace())
        await leftover_node(client, renewed_s=time.time())
        running = await contents(client)
        with pytest.raises(UserError, match="another demo runs in"):
            async with guest(client.config, ignore):
                pass
        assert await contents(client) == running
        stale = {"spec": {"renewTime": micro_timestamp(time.time() - 60)}}
        await client.patch(kinds.LEASE, f"{NAMESPACE}-0", names.NODE_LEASES, stale)
        said: list[str] = []
        async with guest(client.config, said.append):
            assert said == ["deleting what an earlier demo left"]
            assert await contents(client) == before | {("Namespace", "", NAMESPACE)}
        assert await contents(client) == before


async def test_a_server_without_podgroups_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    api = kinds.PODGROUP
    monkeypatch.delitem(request.BY_PATH, (api.group, api.version, api.plural))
    async with host() as client:
        with pytest.raises(UserError, match=r"\(v1\.37\.0-localcluster\) does not serve PodGroup .*; use Kubernetes 1"):
            async with guest(client.config, ignore):
                pass
        assert NAMESPACE not in str((await client.list(kinds.NAMESPACE)).items)


# --- the whole demo ---


@pytest.fixture
def other_cluster(tmp_path: Path) -> Iterator[Path]:
    """The kubeconfig of a second embedded cluster, a process of its own."""
    kubeconfig = tmp_path / "other" / "kubeconfig"
    kubeconfig.parent.mkdir()
    words = ["localcluster", "--state-dir", str(tmp_path / "other"), "--kubeconfig-out", str(kubeconfig)]
    with subprocess.Popen([sys.executable, "-m", "roleratio", *words], stderr=subprocess.DEVNULL) as process:
        try:
            while not kubeconfig.exists():
                assert process.poll() is None
                time.sleep(0.05)
            yield kubeconfig
        finally:
            process.terminate()


async def contents_of(kubeconfig: Path) -> set[tuple[str, str, str]]:
    from kubeapi.config import load_config

    async with KubeClient(load_config(kubeconfig), field_manager="test") as client:
        return await contents(client)


@pytest.mark.demo
@pytest.mark.timeout(300)
def test_interrupted_in_another_cluster_it_leaves_neither_process_nor_object(
    tmp_path: Path, other_cluster: Path
) -> None:
    before = asyncio.run(contents_of(other_cluster))
    report = tmp_path / "out"
    words = ["--kubeconfig", str(other_cluster), "--static", "1,1", "--cold-start-s", "0", "--duration-s", "60"]
    # A shell that runs the suite in the background has SIGINT ignored, and children inherit that.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command(report, *words), stdout=subprocess.PIPE, text=True, preexec_fn=heed) as demo:
        assert demo.stdout is not None
        assert any("first request served" in line for line in demo.stdout)
        during = asyncio.run(contents_of(other_cluster))
        assert ("Node", "", f"{NAMESPACE}-7") in during
        demo.send_signal(signal.SIGINT)
        rest = demo.stdout.read()
        assert demo.wait(60) == 130
    assert "deleted: the demo's namespace, nodes, leases and CRDs" in rest
    assert asyncio.run(contents_of(other_cluster)) == before
    assert children_of(report) == []
