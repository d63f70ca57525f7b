"""A scenario of the gang corpus on an API server: its world as objects, and what the scheduler makes of them.

Rules:
1. A leaf is a PodGroup, an inner node a CompositePodGroup; a preferred level is our annotation.
2. Everything has a namespace, a scheduler name and topology labels of its own; its pods go to its own nodes alone: many
   scenarios may share a server.
3. Names are written small, as Kubernetes wants them; a scenario has none that differ in that alone.
4. A scenario's host is the node's own name. A minimum that Kubernetes cannot change (that of a CompositePodGroup) is
   changed as a person would: the object is deleted and made again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from gangscheduler.conformance import reason_of
from gangscheduler.expectations import State, failures
from gangscheduler.loop import Scheduler
from gangscheduler.model import Choice, Verdict, Verdicts
from gangscheduler.scenario import HOST, NAMES, SCALE, World, parts
from gangscheduler.view import View
from kubeapi import kinds, names
from kubeapi.client import KubeClient
from kubeapi.errors import NotFound

Object = dict[str, Any]

MARK = "corpus.roleratio.dev/scenario"
SETTLE_S = 60.0
_REF = {"workloadName": "corpus", "templateName": "group"}


def cannot_be_told(scenario: Object) -> str:
    """Why Kubernetes has no words for it; empty when it has."""
    if scenario.get("queues"):
        return "no Kubernetes object holds the quota of a queue"
    return ""


def priority_class(value: int) -> str:
    """The name of the PriorityClass of that value."""
    return f"corpus-{value}"


def priorities(scenario: Object) -> set[int]:
    """The priorities that its pods have."""
    trees = [part for gang in scenario["gangs"] for part in parts(gang["tree"])]
    return {pod["priority"] for part in trees for pod in part.get("pods", ()) if "priority" in pod}


@dataclass
class Served:
    """One scenario on a server. `has_classes`: a pod's priority needs a PriorityClass there (see `priority_class`)."""

    client: KubeClient
    namespace: str
    scenario: Object
    has_classes: bool = False
    world: World = field(init=False)
    _sent: dict[tuple[str, str], Object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.world = World(self.scenario)
        self.scheduler_name = f"corpus-{self.namespace}"
        self.levels = tuple(names.HOSTNAME if one == HOST else self._label(one) for one in self.world.levels)

    def view(self) -> View:
        """The scheduler's, with the scenario's levels and policy."""
        policy = self.scenario.get("policy", {}).get("domain_choice")
        return View(self.scheduler_name, self.levels, Choice.PACK if policy is None else Choice(policy))

    async def play(self) -> list[str]:
        """Every step on the server; what is not as expected."""
        problems: list[str] = []
        for raw in self.scenario["nodes"]:
            await self._node(raw)
        await self._mirror()
        async with self._scheduling() as scheduler:
            for number, step in enumerate(self.scenario["steps"]):
                self.world.apply(step["do"])
                await self._mirror()
                verdicts = await self._settled(scheduler)
                found = failures(State(self.world, self._nominated(verdicts), self._reasons(verdicts)), step["expect"])
                problems += [f"step {number + 1}: {problem}" for problem in found]
        return problems

    async def clear(self) -> None:
        """Remove the nodes; the namespace goes with whoever made it."""
        for raw in self.scenario["nodes"]:
            with suppress(NotFound):
                await self.client.delete(kinds.NODE, self._full(raw["name"]))

    @asynccontextmanager
    async def _scheduling(self) -> AsyncIterator[Scheduler]:
        scheduler = Scheduler(self.client, self.view())
        task = asyncio.create_task(scheduler.run())
        try:
            yield scheduler
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _settled(self, scheduler: Scheduler) -> Verdicts:
        """Wait until a decision about all that the server shows binds nothing, and nobody is left to arrive."""
        async with asyncio.timeout(SETTLE_S):
            while True:
                places = await self._places()
                snapshot, verdicts = scheduler.decided()
                seen = {pod.key.rpartition("/")[2]: pod.node for pod in snapshot.pods if self._is_own(pod.key)}
                groups = {group.key: group.min_count for group in snapshot.groups if self._is_own(group.key)}
                nodes = sum(node.name.startswith(self._full("")) for node in snapshot.nodes)
                quiet = not verdicts.bindings and not scheduler.view.assumed
                if quiet and seen == places and groups == self._minimums() and nodes == len(self.scenario["nodes"]):
                    self._learn(places)
                    if not self.world.arrive():
                        return verdicts
                    await self._mirror()
                await asyncio.sleep(0.02)

    async def _places(self) -> dict[str, str]:
        """The node of every pod that is not finished."""
        pods = (await self.client.list(kinds.POD, self.namespace)).items
        live = [pod for pod in pods if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")]
        return {pod["metadata"]["name"]: pod["spec"].get("nodeName", "") for pod in live}

    def _learn(self, places: dict[str, str]) -> None:
        hosts = self._hosts()
        for name, member in self.world.members.items():
            node = places.get(name.lower(), "")
            member.node = hosts[node] if node else ""

    def _nominated(self, verdicts: Verdicts) -> dict[str, str]:
        hosts, own_names = self._hosts(), {name.lower(): name for name in self.world.members}
        return {
            own_names[one.pod.rpartition("/")[2]]: hosts[one.node]
            for one in verdicts.nominations
            if self._is_own(one.pod)
        }

    def _reasons(self, verdicts: Verdicts) -> dict[str, Object]:
        said = {verdict.name: verdict for verdict in verdicts.groups if self._is_own(verdict.name)}
        found: dict[str, Object] = {}
        for gang in self.world.gangs:
            own: list[Verdict] = [said[self._key(part)] for part in parts(gang["tree"])]
            if (reason := reason_of(gang, own)) is not None:
                found[gang["name"]] = reason
        return found

    def _minimums(self) -> dict[str, int]:
        trees = [part for gang in self.world.gangs for part in parts(gang["tree"])]
        return {self._key(part): _minimum(part) for part in trees}

    async def _mirror(self) -> None:
        """Make the server's objects what the world's are: groups first, the topmost first."""
        wanted = dict(self._objects())
        for kind, name in [key for key in self._sent if key not in wanted]:
            await self._delete(kind, name)
        for key, body in wanted.items():
            if self._sent.get(key) == body:
                continue
            kind, name = key
            if key in self._sent and kind == kinds.PODGROUP.kind:
                await self.client.patch(kinds.PODGROUP, name, self.namespace, {"spec": body["spec"]})
            else:
                if key in self._sent:
                    await self._delete(kind, name)
                await self._create(kind, body)
            self._sent[key] = body

    def _objects(self) -> Iterator[tuple[tuple[str, str], Object]]:
        for gang in self.world.gangs:
            above = {child["name"]: part["name"] for part in parts(gang["tree"]) for child in part.get("children", ())}
            for part in parts(gang["tree"]):
                kind = kinds.COMPOSITE_PODGROUP if "children" in part else kinds.PODGROUP
                yield (kind.kind, part["name"].lower()), self._group(part, above.get(part["name"], ""))
        for name, member in self.world.members.items():
            yield (kinds.POD.kind, name.lower()), self._pod(member.raw, member.leaf)

    def _group(self, part: Object, parent: str) -> Object:
        count = "minGroupCount" if "children" in part else "minCount"
        least = _minimum(part)
        spec: Object = {"schedulingPolicy": {"gang": {count: least}} if least else {"basic": {}}, "workloadRef": _REF}
        if parent:
            spec["parentCompositePodGroupName"] = parent.lower()
        if level := part.get("required_level"):
            spec["schedulingConstraints"] = {"topology": [{"key": self._level(level)}]}
        meta: Object = {"name": part["name"].lower()}
        if level := part.get("preferred_level"):
            meta["annotations"] = {names.ANNOTATION_PREFERRED_TOPOLOGY: self._level(level)}
        return {"metadata": meta, "spec": spec}

    def _pod(self, raw: Object, leaf: str) -> Object:
        limits = {NAMES.get(one, f"example.com/{one}"): _amount(one, value) for one, value in raw["request"].items()}
        tolerated = [raw["tolerates"]] if isinstance(raw.get("tolerates"), str) else raw.get("tolerates") or ()
        spec: Object = {
            "schedulerName": self.scheduler_name if leaf else "nobody",
            "nodeSelector": {MARK: self.namespace} | (raw.get("selector") or {}),
            "tolerations": [{"key": key, "operator": "Exists"} for key in (MARK, *tolerated)],
            "containers": [{"name": "main", "image": "worker", "resources": {"limits": limits, "requests": limits}}],
        }
        if leaf:
            spec["schedulingGroup"] = {"podGroupName": leaf.lower()}
        if "priority" in raw:
            spec["priority"] = raw["priority"]
            spec |= {"priorityClassName": priority_class(raw["priority"])} if self.has_classes else {}
        if raw.get("node"):
            spec["nodeName"] = self._full(raw["node"])
        return {"metadata": {"name": raw["name"].lower()}, "spec": spec, "phase": raw.get("phase", "")}

    async def _create(self, kind: str, body: Object) -> None:
        if kind != kinds.POD.kind:
            of_kind = {one.kind: one for one in (kinds.PODGROUP, kinds.COMPOSITE_PODGROUP)}[kind]
            await self.client.create(of_kind, body, self.namespace)
            return
        phase = body["phase"]
        # A pod that terminates is one that something still holds.
        held = {"finalizers": ["roleratio.dev/corpus"]} if phase == "terminating" else {}
        sent = body | {"metadata": body["metadata"] | held}
        del sent["phase"]
        name = (await self.client.create(kinds.POD, sent, self.namespace))["metadata"]["name"]
        if phase in ("succeeded", "failed"):
            ended = {"terminated": {"exitCode": 0 if phase == "succeeded" else 1}}
            container = {"name": "main", "image": "worker", "imageID": "", "ready": False, "restartCount": 0}
            status = {"phase": phase.capitalize(), "containerStatuses": [container | {"state": ended}]}
            await self.client.patch(kinds.POD, name, self.namespace, {"status": status}, subresource="status")
        elif phase == "terminating":
            await self.client.delete(kinds.POD, name, self.namespace, grace_period_s=0)

    async def _delete(self, kind: str, name: str) -> None:
        of_kind = {one.kind: one for one in (kinds.POD, kinds.PODGROUP, kinds.COMPOSITE_PODGROUP)}[kind]
        if kind == kinds.POD.kind:
            await self.client.patch(of_kind, name, self.namespace, {"metadata": {"finalizers": None}})
        with suppress(NotFound):
            await self.client.delete(of_kind, name, self.namespace, grace_period_s=0)
        del self._sent[kind, name]

    async def _node(self, raw: Object) -> None:
        name = self._full(raw["name"])
        labels = {self._label(level): f"{self.namespace}-{value}" for level, value in raw.get("domains", {}).items()}
        labels |= {MARK: self.namespace, names.HOSTNAME: name} | (raw.get("labels") or {})
        await self.client.create(kinds.NODE, {"metadata": {"name": name, "labels": labels}})
        room = {NAMES.get(one, f"example.com/{one}"): _amount(one, value) for one, value in raw["capacity"].items()}
        ready = {"type": "Ready", "status": "True" if raw.get("ready", True) else "False", "reason": "Corpus"}
        status = {"capacity": room, "allocatable": room | {"pods": "110"}, "conditions": [ready | {"message": "so"}]}
        await self.client.patch(kinds.NODE, name, None, {"status": status}, subresource="status")
        taints = [{"key": MARK, "value": self.namespace, "effect": "NoSchedule"}]
        own = [raw["taint"]] if isinstance(raw.get("taint"), str) else raw.get("taint") or ()
        taints += [{"key": key, "effect": "NoSchedule"} for key in own]
        spec = {"taints": taints, "unschedulable": raw.get("cordoned", False)}
        await self.client.patch(kinds.NODE, name, None, {"spec": spec})

    def _key(self, part: Object) -> str:
        return f"{self.namespace}/{'composite/' if 'children' in part else ''}{part['name'].lower()}"

    def _is_own(self, key: str) -> bool:
        return key.startswith(f"{self.namespace}/")

    def _full(self, node: str) -> str:
        return f"{self.namespace}.{node.lower()}"

    def _hosts(self) -> dict[str, str]:
        """The scenario's names of its nodes."""
        return {self._full(raw["name"]): raw["name"] for raw in self.scenario["nodes"]}

    def _label(self, level: str) -> str:
        return f"corpus.roleratio.dev/{level}"

    def _level(self, level: str) -> str:
        return names.HOSTNAME if level == HOST else self._label(level)


def _minimum(part: Object) -> int:
    least = part.get("min_pods", part.get("min_children", 0))
    return len(part["children"]) if least == "all" else int(least)


def _amount(resource: str, value: float) -> str:
    """In thousandths, which only cpu has a suffix for."""
    return f"{round(value * SCALE)}{'m' if resource == 'cpu' else ''}"
