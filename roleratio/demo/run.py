"""One demo from start to report, as numbered steps.

Rules:
1. Every wait is bounded, and ends at once when a child ends.
2. The load's clock starts at its first moment; fleet changes are told in its seconds.
3. Whatever happens, every child is stopped, and then what was made in somebody else's cluster is deleted.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

import aiohttp
import yaml

from kubeapi.client import KubeClient, Object
from kubeapi.config import load_config
from kubeapi.errors import ApiError
from kubeapi.kinds import Kind
from roleratio import load
from roleratio.demo import manifests, output
from roleratio.demo.children import Children, DemoError, beside
from roleratio.demo.fleet import FleetWatch
from roleratio.demo.guest import Guest, guest
from roleratio.demo.plan import GPU_BUDGET, GPUS_PER_NODE, NODES, Plan
from roleratio.demo.prometheus import Prometheus
from roleratio.demo.screen import Screen
from roleratio.demo.status import Status, free_ports
from roleratio.load import LoadRun
from roleratio.records import SloTargets
from roleratio.report.numbers import ROLES

CLUSTER_LIMIT_S = 20.0
PROMETHEUS_LIMIT_S = 30.0
READY_LIMIT_S = 60.0
FINISH_LIMIT_S = 120.0
SETTLE_LIMIT_S = 60.0


def run_demo(plan: Plan) -> int:
    """Run a demo; the exit code."""
    try:
        return asyncio.run(_until_stopped(plan))
    except DemoError as error:
        print(f"roleratio demo: {error}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM


async def _until_stopped(plan: Plan) -> int:
    """SIGTERM is a cancellation, as Ctrl-C is, so that the children are stopped the same way."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await _Demo(plan).run()
    except ApiError as error:
        raise DemoError(f"the cluster refused: {error.message}") from error


class _Demo:
    """The state of one run."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._begun = time.monotonic()
        self._kubeconfig = plan.guest_of or plan.kubeconfig_out or plan.report / "kubeconfig"
        self._load = LoadRun()
        self._status = Status()
        self._prometheus = (
            Prometheus(plan.prometheus, plan.report / "prometheus", free_ports(1)[0]) if plan.prometheus else None
        )
        self._status.prometheus = self._prometheus.url if self._prometheus else ""
        self._settings = manifests.settings(plan.shape, GPU_BUDGET, self._status.prometheus)
        slo = self._settings["spec"]["slo"]
        self._slo = SloTargets(slo["ttft"]["targetMs"], slo["itl"]["targetMs"])
        self._first_request_s: float | None = None
        self._window_s = 0.0
        self._end_s = 0.0
        self._fleet: FleetWatch | None = None
        self._restarts: list[tuple[float, str]] = []

    async def run(self) -> int:
        """All steps; the exit code."""
        plan = self._plan
        output.clear(plan.report)
        (plan.report / output.SETTINGS).write_text(yaml.safe_dump(self._settings, sort_keys=False), encoding="utf-8")
        if plan.arrivals_left_out:
            self._say(f"{plan.arrivals_left_out} requests are longer than the model's context and are left out")
        if plan.guest_of:
            async with guest(load_config(plan.guest_of), self._say) as host:
                await self._with_children(host)
        else:
            await self._with_children(None)
        assert self._fleet is not None
        summary = output.write(
            plan,
            self._load,
            self._fleet.log,
            self._slo,
            window_s=self._window_s,
            end_s=self._end_s,
            first_request_s=self._first_request_s,
            restarts=self._restarts,
        )
        print(output.closing_lines(plan, summary), flush=True)
        return 0

    async def _with_children(self, host: Guest | None) -> None:
        async with Children(self._plan.report / "logs", self._note_restart) as children:
            await self._serve(children, host)
            self._say("stopping")

    async def _serve(self, children: Children, host: Guest | None) -> None:
        # 1. A cluster.
        await (self._start_nodes(children, host) if host else self._start_cluster(children))
        self._say(f"cluster ready: {NODES} nodes with {GPUS_PER_NODE} GPUs each; kubeconfig {self._kubeconfig}")
        config = load_config(self._kubeconfig)
        async with KubeClient(config, field_manager="roleratio-demo") as client:
            # 2. The service, in whose namespace the Leases are.
            objects = manifests.guest_objects if host else manifests.objects
            await _apply(client, objects(self._plan.shape))
            # 3. Who places and scales.
            await self._start_controllers(children)
            self._fleet = FleetWatch(client, manifests.NAMESPACE, manifests.SERVICE)
            helpers = [self._fleet.run(), children.watch()]
            if self._prometheus:
                helpers.append(self._prometheus.follow(self._fleet.pods.items, manifests.HTTP_PORT))
            await beside(self._drive(self._fleet), *helpers)

    async def _drive(self, fleet: FleetWatch) -> None:
        # 4. The first request: held by the router until both roles are ready.
        await fleet.synced()
        await _wait(READY_LIMIT_S, "the router", lambda: fleet.router_url(manifests.HTTP_PORT) is not None)
        url = fleet.router_url(manifests.HTTP_PORT)
        assert url is not None
        await _first_request(url)
        self._first_request_s = time.monotonic() - self._begun
        self._say(f"first request served after {self._first_request_s:.1f} s")
        # 5. The load, watched.
        screen = Screen(self._plan, self._load, fleet, self._status, self._slo)
        await beside(self._send(fleet, url), screen.run(), self._status.run())

    async def _send(self, fleet: FleetWatch, url: str) -> None:
        await load.run(
            self._plan.arrivals,
            url,
            manifests.MODEL,
            seed=self._plan.seed,
            finish_s=FINISH_LIMIT_S,
            load=self._load,
        )
        self._window_s = self._load.now_s()
        # 6. The fleet shrinks.
        if self._plan.autoscaled:
            await _settle(fleet)
        self._end_s = self._load.now_s()

    async def _start_cluster(self, children: Children) -> None:
        self._kubeconfig.unlink(missing_ok=True)
        await self._start_localcluster(children, "--kubeconfig-out", str(self._kubeconfig))
        await beside(_wait(CLUSTER_LIMIT_S, "the local cluster", self._has_kubeconfig), children.watch())

    async def _start_nodes(self, children: Children, host: Guest) -> None:
        options = ["--kubeconfig", str(self._kubeconfig), "--namespace", manifests.NAMESPACE]
        options += ["--lws-controller"] if host.lws_controller else []
        await self._start_localcluster(children, *options)
        await beside(host.nodes_ready(NODES), children.watch())

    async def _start_localcluster(self, children: Children, *options: str) -> None:
        where = ("--state-dir", str(self._plan.report / "cluster"))
        size = ("--nodes", str(NODES), "--gpus-per-node", str(GPUS_PER_NODE))
        await children.start("localcluster", "localcluster", *where, *options, *size, stop_s=15.0)

    async def _start_controllers(self, children: Children) -> None:
        scheduler_port, controller_port = free_ports(2)
        if self._prometheus:
            await self._start_prometheus(self._prometheus, children, scheduler_port, controller_port)
        common = ("--kubeconfig", str(self._kubeconfig), "--leader-elect", "--lease-namespace", manifests.NAMESPACE)
        await children.start("scheduler", "scheduler", *common, "--port", str(scheduler_port), kept=True)
        self._status.scheduler = f"http://127.0.0.1:{scheduler_port}"
        if not self._plan.autoscaled:
            return
        settings = ("--settings", str(self._plan.report / output.SETTINGS))
        journal = ("--journal", str(self._plan.report / output.JOURNAL))
        port = ("--port", str(controller_port))
        await children.start("controller", "controller", *settings, *common, *journal, *port, kept=True)
        self._status.controller = f"http://127.0.0.1:{controller_port}"

    async def _start_prometheus(
        self, prometheus: Prometheus, children: Children, scheduler_port: int, controller_port: int
    ) -> None:
        statics = {"roleratio-scheduler": f"127.0.0.1:{scheduler_port}"}
        if self._plan.autoscaled:
            statics["roleratio-controller"] = f"127.0.0.1:{controller_port}"
        prometheus.prepare(statics)
        await children.start("prometheus", *prometheus.arguments, program=(prometheus.binary,))
        await beside(prometheus.ready(PROMETHEUS_LIMIT_S), children.watch())
        self._say(f"Prometheus: {prometheus.url}")

    def _has_kubeconfig(self) -> bool:
        return self._kubeconfig.is_file() and self._kubeconfig.stat().st_size > 0

    def _note_restart(self, text: str) -> None:
        self._restarts.append((time.monotonic(), text))
        self._say(f"* {text}")

    def _say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._begun:6.1f} s] {text}", flush=True)


async def _apply(client: KubeClient, objects: Iterable[tuple[Kind, Object]]) -> None:
    """Create everything."""
    for kind, body in objects:
        await client.create(kind, body, manifests.NAMESPACE if kind.namespaced else None)


async def _first_request(url: str) -> None:
    """One token, through both roles."""
    body = {"model": manifests.MODEL, "prompt": "hello", "max_tokens": 1}
    timeout = aiohttp.ClientTimeout(total=READY_LIMIT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(url + "/v1/completions", json=body) as response,
        ):
            text = await response.text()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise DemoError(f"the first request was not served: {error or type(error).__name__}") from error
    if response.status != 200:
        raise DemoError(f"the first request was not served: HTTP {response.status}: {text}")


async def _settle(fleet: FleetWatch) -> None:
    """Wait until both roles are at one group, or for so long as is sensible."""

    def small() -> bool:
        latest = [fleet.log.latest(role) for role in ROLES]
        return all(sample is not None and sample.held <= 1 for sample in latest)

    with suppress(DemoError):
        await _wait(SETTLE_LIMIT_S, "the fleet", small)


async def _wait(limit_s: float, name: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise DemoError(f"{name} was not ready within {limit_s:g} s; see the logs in the report folder")
        await asyncio.sleep(0.05)
