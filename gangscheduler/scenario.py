"""A scenario of the neutral gang corpus (`gang-scenarios/v1`) as a world: snapshots out, bindings and changes in.

Rules:
1. A node of a scenario's tree is a group; a leaf's pods are its own, so that its minimum counts pods.
2. Amounts are kept as thousandths, whatever the resource; a resource that is neither gpu, cpu nor mem gets a name of
   its own. What a scenario calls gpu is an extended resource.
3. The host is the innermost level, named by the node.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gangscheduler.model import (
    ALL,
    Amounts,
    Choice,
    Group,
    Node,
    Pod,
    PodShape,
    Snapshot,
    Taint,
    Toleration,
)

Raw = Mapping[str, Any]

HOST = "host"
DEFAULT_PRIORITY = 50
SCALE = 1000
NAMES = {"gpu": "example.com/gpu", "cpu": "cpu", "mem": "memory"}
FINISHED = ("failed", "succeeded")
# As late as no floor of unknown shape makes others wait.
LATE_S = 1e6


class UnknownAction(ValueError):
    """A step asks for what this corpus does not define."""


@dataclass
class Member:
    """A pod of the world; `leaf` and `gang` are empty for a filler."""

    raw: Raw
    leaf: str
    gang: str
    node: str
    phase: str
    order: int


class World:
    """A scenario and what has become of it."""

    def __init__(self, scenario: Raw) -> None:
        self.scenario = scenario
        levels = tuple(scenario.get("levels", ()))
        self.levels = levels if HOST in levels else (*levels, HOST)
        self.gangs: list[dict[str, Any]] = []
        self.members: dict[str, Member] = {}
        self.waiting_gangs = [dict(gang) for gang in scenario["gangs"]]
        for filler in scenario.get("fillers", ()):
            self._add(filler, "", "")
        self.at_start: dict[str, str] = {}
        self.arrive()

    def arrive(self) -> bool:
        """Let in every gang whose predecessor is there; whether there was one."""
        here = {gang["name"] for gang in self.gangs}
        ready = [gang for gang in self.waiting_gangs if gang.get("arrives_after") in (None, *here)]
        for gang in ready:
            self.waiting_gangs.remove(gang)
            self._join(gang)
        return bool(ready)

    def apply(self, action: Raw) -> None:
        """Change the world as a step says; scheduling is the caller's. Raises UnknownAction, KeyError."""
        match action["action"]:
            case "schedule" | "stale-check" | "advance":
                pass
            case "delete":
                for name in action["pods"]:
                    self.members.pop(name, None)
            case "patch-min":
                group = self._find(action["group"])
                group |= {key: action[key] for key in ("min_children", "min_pods") if key in action}
            case "create-group":
                self._grow(action["parent"], action.get("leaf") or action["tree"])
            case "create-gang":
                self._join(dict(action["gang"]))
            case other:
                raise UnknownAction(f"action {other!r}")

    def _join(self, gang: dict[str, Any]) -> None:
        gang["tree"] = _copied(gang["tree"])
        self.gangs.append(gang)
        self._enlist(gang["tree"], gang["name"])

    def _grow(self, parent: str, tree: Raw) -> None:
        group = self._find(parent)
        gang = next(gang for gang in self.gangs if any(part is group for part in parts(gang["tree"])))
        new = _copied(tree)
        group["children"].append(new)
        self._enlist(new, gang["name"])

    def _enlist(self, tree: Raw, gang: str) -> None:
        for part in parts(tree):
            for pod in part.get("pods", ()):
                self._add(pod, part["name"], gang)

    def _add(self, raw: Raw, leaf: str, gang: str) -> None:
        phase = raw.get("phase", "")
        node = "" if phase in FINISHED else raw.get("node", "")
        self.members[raw["name"]] = Member(raw, leaf, gang, node, phase, len(self.members))
        self.__dict__.setdefault("at_start", {})
        if gang:
            self.at_start[raw["name"]] = node

    def _find(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(
            part for gang in self.gangs for part in parts(gang["tree"]) if part["name"] == name
        )
        return found

    def snapshot(self) -> Snapshot:
        """What the scheduler sees now."""
        policy = self.scenario.get("policy", {}).get("domain_choice")
        return Snapshot(
            now_s=LATE_S,
            nodes=tuple(self._node(raw) for raw in self.scenario["nodes"]),
            pods=tuple(self._pod(one) for one in self.members.values() if one.phase not in FINISHED),
            groups=tuple(group for number, gang in enumerate(self.gangs) for group in self._groups(gang, number)),
            levels=self.levels,
            choice=Choice.PACK if policy is None else Choice(policy),
            quotas=tuple((queue["name"], _amounts(queue["quota"])) for queue in self.scenario.get("queues", ())),
        )

    def _node(self, raw: Raw) -> Node:
        domains = {**raw.get("domains", {}), HOST: raw["name"]}
        return Node(
            name=raw["name"],
            allocatable=_amounts(raw["capacity"]),
            path=tuple(domains.get(level, "") for level in self.levels),
            labels=tuple(sorted((raw.get("labels") or {}).items())),
            taints=tuple(Taint(key, "", "NoSchedule") for key in _listed(raw.get("taint"))),
            ready=raw.get("ready", True),
            cordoned=raw.get("cordoned", False),
        )

    def _pod(self, one: Member) -> Pod:
        raw = one.raw
        return Pod(
            key=raw["name"],
            uid=raw["name"],
            shape=PodShape(
                requests=_amounts(raw["request"]),
                selector=tuple(sorted((raw.get("selector") or {}).items())),
                tolerations=tuple(Toleration(key, "Exists", "", "") for key in _listed(raw.get("tolerates"))),
            ),
            node=one.node,
            terminating=one.phase == "terminating",
            ours=bool(one.gang),
            group=f"{one.gang}/{one.leaf}" if one.gang else "",
            tp_group=raw["name"],
            order=(one.order, 0),
            priority=raw.get("priority", 0),
        )

    def _groups(self, gang: Raw, number: int) -> Iterator[Group]:
        above = {id(child): part["name"] for part in parts(gang["tree"]) for child in part.get("children", ())}
        for order, part in enumerate(parts(gang["tree"])):
            minimum = part.get("min_pods", part.get("min_children", 0))
            parent = above.get(id(part))
            yield Group(
                key=f"{gang['name']}/{part['name']}",
                uid=part["name"],
                min_count=ALL if minimum == "all" else minimum,
                priority=gang.get("priority", DEFAULT_PRIORITY),
                created_s=number + order / 1024,
                composite="children" in part,
                parent="" if parent is None else f"{gang['name']}/{parent}",
                required_level=part.get("required_level", ""),
                preferred_level=part.get("preferred_level", ""),
                fulfilled=sum(1 for pod in part.get("pods", ()) if self._succeeded(pod["name"])),
                queue=gang.get("queue", ""),
                preemptible=gang.get("preemptible", True),
            )

    def _succeeded(self, name: str) -> bool:
        return name in self.members and self.members[name].phase == "succeeded"

    def where(self, name: str) -> str:
        """The node of a pod, "" without one."""
        return self.members[name].node if name in self.members else ""

    def bound(self) -> dict[str, str]:
        """The node of every pod of a gang that has one."""
        return {name: one.node for name, one in self.members.items() if one.gang and one.node}

    def pods_of(self, name: str) -> list[str]:
        """The pods that exist below a gang, or a node of a tree."""
        roots = [gang["tree"] for gang in self.gangs if gang["name"] == name]
        roots = roots or [part for gang in self.gangs for part in parts(gang["tree"]) if part["name"] == name]
        return (
            [pod["name"] for part in parts(roots[0]) for pod in part.get("pods", ()) if pod["name"] in self.members]
            if roots
            else []
        )

    def children_of(self, name: str) -> list[Raw]:
        """The child groups of a node of a tree."""
        return list(self._find(name).get("children", ()))

    def domain(self, node: str, level: str) -> tuple[str, ...]:
        """The full path of the domain of a level in which the node lies."""
        raw = next(raw for raw in self.scenario["nodes"] if raw["name"] == node)
        domains = {**raw.get("domains", {}), HOST: node}
        return tuple(domains.get(one, "") for one in self.levels[: self.levels.index(level) + 1])


def parts(tree: Raw) -> Iterator[dict[str, Any]]:
    """A node of a tree and all below it."""
    yield dict(tree) if not isinstance(tree, dict) else tree
    for child in tree.get("children", ()):
        yield from parts(child)


def _copied(tree: Raw) -> dict[str, Any]:
    children = {"children": [_copied(child) for child in tree["children"]]} if "children" in tree else {}
    return {**tree, **children}


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def _amounts(raw: Raw) -> Amounts:
    found = {NAMES.get(name, f"example.com/{name}"): round(value * SCALE) for name, value in raw.items()}
    return tuple(
        sorted(((name, value) for name, value in found.items()), key=lambda item: ("/" not in item[0], item[0]))
    )
