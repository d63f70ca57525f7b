"""The shared corpus of gang scenarios, as far as it speaks of what this scheduler does.

How a scenario's tree becomes Kubernetes objects:
1. A leaf is a PodGroup whose pods are TP groups of one.
2. An inner node whose children are all-or-nothing leaves is a PodGroup; its children are TP groups, and
   its minimum of children is the floor.
3. A root over such nodes is a service, its children are the roles.
4. A leaf that prefers a level, and a tree tagged `leader-worker`, is a PodGroup with one TP group.

A scenario is not applicable when it needs anything else: preemption, defragmentation, eviction, quotas,
nomination, required topology (unless the level has only one domain), deeper trees, roles that only start
together.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from gangscheduler.model import Reason, Verdicts
from gangscheduler.place import place
from kubeapi import names
from tests.gangscheduler.builders import T0_S, Object, bound, node, pod, podgroup, see
from tests.shared_data import shared

LEVEL_LABELS = (names.TOPOLOGY_ZONE, names.TOPOLOGY_BLOCK, names.TOPOLOGY_RACK)
RESOURCES = {"gpu": names.GPU, "cpu": "cpu", "mem": "memory"}
KNOWN_EXPECTATIONS = {
    "bound", "unbound", "bound_all", "unbound_all", "on", "bound_count", "bound_count_min", "bound_count_total",
    "exactly_one_gang_bound", "same_domain", "max_domains", "subtree_min", "atomic", "bound_at_least_pods",
    "not_moved", "not_evicted", "reason", "peer_exact", "peer_exact_counts",
}  # fmt: skip
REASONS = {
    "insufficient-capacity": {Reason.INSUFFICIENT_RESOURCE},
    "fragmented": {Reason.FRAGMENTED},
    "quorum-missing": {Reason.MINIMUM_NOT_MET},
    "pod-too-large": {Reason.POD_TOO_LARGE},
}
ONLY_TOGETHER = {"tree-07"}  # one role's unmet minimum must also stop the other role
APPLICABLE = 24


def scenarios() -> list[dict[str, Any]]:
    """Every scenario of the corpus."""
    found: list[dict[str, Any]] = json.loads(shared("data/gang/scenarios.json").read_text())["scenarios"]
    return found


def is_applicable(scenario: dict[str, Any]) -> bool:
    """Whether this scheduler claims to do what the scenario is about."""
    steps = scenario["steps"]
    return (
        "queues" not in scenario
        and scenario["id"] not in ONLY_TOGETHER
        and scenario.get("policy") in (None, "best-fit")
        and all(one["do"]["action"] in ("schedule", "delete", "create-group") for one in steps)
        and all(set(one["do"].get("allow", ["allocate"])) == {"allocate"} for one in steps)
        and all(set(one["expect"]) <= KNOWN_EXPECTATIONS for one in steps)
        and all(has_known_shape(scenario, gang["tree"]) for gang in scenario["gangs"])
    )


def has_known_shape(scenario: dict[str, Any], tree: dict[str, Any]) -> bool:
    """Whether the tree is a service of roles at most, and asks for no topology that could fail."""
    if any(not is_vacuous(scenario, part["required_level"]) for part in parts(tree) if "required_level" in part):
        return False
    if is_role(tree) or "leader-worker" in scenario["tags"]:
        return True
    return tree["min_children"] in ("all", 0) and all(is_role(child) for child in tree["children"])


def is_vacuous(scenario: dict[str, Any], level: str) -> bool:
    depth = scenario["levels"].index(level) + 1 if level in scenario.get("levels", ()) else 0
    places = {tuple(one["domains"][name] for name in scenario["levels"][:depth]) for one in scenario["nodes"]}
    return depth > 0 and len(places) == 1


def is_role(tree: dict[str, Any]) -> bool:
    """A leaf, or an inner node with a numeric minimum over whole leaves."""
    if "pods" in tree:
        return "preferred_level" not in tree or is_whole(tree)
    return tree["min_children"] != "all" and all(is_whole(child) for child in tree["children"])


def is_whole(tree: dict[str, Any]) -> bool:
    """A leaf that needs all its pods."""
    return "pods" in tree and tree["min_pods"] == len(tree["pods"])


def parts(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The node and all below it."""
    yield tree
    for child in tree.get("children", ()):
        yield from parts(child)


def leaves(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (part for part in parts(tree) if "pods" in part)


class World:
    """A scenario as Kubernetes objects, changed by its steps."""

    def __init__(self, scenario: dict[str, Any]) -> None:
        levels = scenario.get("levels", [])
        self.nodes = [self._node(one, levels) for one in scenario["nodes"]]
        self.domains = {one["name"]: one.get("domains", {}) for one in scenario["nodes"]}
        self.levels = levels
        self.groups: list[Object] = []
        self.pods: dict[str, Object] = {}
        self.leaf_pods: dict[str, list[str]] = {}
        self.gang_pods: dict[str, list[str]] = {}
        for filler in scenario.get("fillers", ()):
            self._add(filler, {}, terminating=filler.get("phase") == "terminating")
        arrival = scenario.get("arrival", [])
        for gang in scenario["gangs"]:
            self._gang(gang, arrival, one_tp_group="leader-worker" in scenario["tags"])
        self.at_start = {name: one["spec"].get("nodeName", "") for name, one in self.pods.items()}
        self.verdicts = Verdicts()

    def _node(self, raw: dict[str, Any], levels: list[str]) -> Object:
        labels = {label: raw["domains"][level] for level, label in zip(levels, LEVEL_LABELS, strict=False)
                  if level != "host"}  # fmt: skip
        taint = [{"key": raw["taint"], "value": "", "effect": "NoSchedule"}] if raw.get("taint") else []
        made = node(raw["name"], 0, labels=labels | raw.get("labels", {}), taints=taint, ready=raw.get("ready", True))
        amounts = {RESOURCES[name]: str(value) for name, value in raw["capacity"].items() if name in RESOURCES}
        made["status"]["allocatable"] |= amounts
        return made

    def _gang(self, gang: dict[str, Any], arrival: list[str], *, one_tp_group: bool) -> None:
        tree = gang["tree"]
        if one_tp_group:
            pods = [one for leaf in leaves(tree) for one in leaf["pods"]]
            tree = {"name": tree["name"], "pods": pods, "min_pods": len(pods), "preferred_level": "any"}
        self.gang_pods[gang["name"]] = [one["name"] for leaf in leaves(tree) for one in leaf["pods"]]
        for leaf in leaves(tree):
            self.leaf_pods[leaf["name"]] = [one["name"] for one in leaf["pods"]]
        for role in [tree] if is_role(tree) else tree["children"]:
            first = min((arrival.index(one) for one in self.gang_pods[gang["name"]] if one in arrival), default=0)
            self._role(role, gang, created=f"2026-01-01T00:00:{first:02d}Z")

    def _role(self, role: dict[str, Any], gang: dict[str, Any], created: str) -> None:
        if "pods" in role:
            floor = role["min_pods"]
        else:
            sizes = sorted(len(child["pods"]) for child in role["children"])
            floor = sum(sizes[: role["min_children"]])
        priority = gang.get("priority", 50)
        self.groups.append(podgroup(role["name"], floor, service=gang["name"], priority=priority, created=created))
        for leaf in leaves(role):
            self.add_leaf(role["name"], leaf, whole="pods" not in role or "preferred_level" in role)

    def add_leaf(self, group: str, leaf: dict[str, Any], *, whole: bool) -> None:
        """The pods of a leaf: one TP group, or TP groups of one."""
        self.leaf_pods[leaf["name"]] = [one["name"] for one in leaf["pods"]]
        for one in leaf["pods"]:
            extra: Object = {"group": group}
            if whole:
                extra["labels"] = {names.LWS_GROUP_KEY: leaf["name"]}
                extra["annotations"] = {names.LWS_SIZE: str(len(leaf["pods"]))}
            self._add(one, extra)

    def _add(self, raw: dict[str, Any], extra: Object, *, terminating: bool = False) -> None:
        requests = {RESOURCES[name]: str(value) for name, value in raw["request"].items()}
        spec: Object = {
            "containers": [{"resources": {"requests": requests}}],
            "nodeSelector": raw.get("selector", {}),
            "tolerations": [{"key": key, "operator": "Exists"} for key in listed(raw.get("tolerates"))],
            "priority": raw.get("priority", 0),
        }
        made = pod(raw["name"], on=raw.get("node", ""), terminating=terminating, spec=spec, **extra)
        if raw.get("phase") in ("failed", "succeeded"):
            made["status"]["phase"] = raw["phase"].capitalize()
        self.pods[raw["name"]] = made

    def do(self, action: dict[str, Any]) -> None:
        """One step, then cycles until nothing is bound any more."""
        for name in action.get("pods", ()) if action["action"] == "delete" else ():
            del self.pods[name]
        if action["action"] == "create-group":
            self.add_leaf(action["parent"], action["leaf"], whole=True)
            self.at_start |= {one["name"]: "" for one in action["leaf"]["pods"]}
        while True:
            self.verdicts = place(see(self.nodes, self.pods.values(), self.groups, T0_S + 3600))
            found = bound(self.verdicts)
            for name, where in found.items():
                self.pods[name]["spec"]["nodeName"] = where
            if not found:
                return

    def where(self, name: str) -> str:
        return self.pods[name]["spec"].get("nodeName", "") if name in self.pods else ""

    def count(self, pods: Iterable[str]) -> int:
        return sum(1 for name in pods if self.where(name))

    def domain(self, name: str, level: str) -> tuple[str, ...]:
        depth = self.levels.index(level) + 1
        return tuple(self.domains[self.where(name)][one] for one in self.levels[:depth])


def listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def check(world: World, expect: dict[str, Any]) -> None:
    """Every expectation of a step, one by one."""
    for key, wanted in expect.items():
        CHECKS[key](world, wanted)


def check_bound(world: World, wanted: list[str]) -> None:
    assert [name for name in wanted if not world.where(name)] == []


def check_unbound(world: World, wanted: list[str]) -> None:
    assert [name for name in wanted if world.where(name)] == []


def check_all(world: World, wanted: bool) -> None:
    check_bound(world, [name for name in world.pods if not world.at_start[name]])


def check_none(world: World, wanted: bool) -> None:
    check_unbound(world, [name for name in world.pods if not world.at_start[name]])


def check_on(world: World, wanted: dict[str, Any]) -> None:
    assert {name: world.where(name) for name in wanted if world.where(name) not in listed(wanted[name])} == {}


def check_count(world: World, wanted: dict[str, int]) -> None:
    assert {leaf: world.count(world.leaf_pods[leaf]) for leaf in wanted} == wanted


def check_count_min(world: World, wanted: dict[str, int]) -> None:
    assert all(world.count(world.leaf_pods[leaf]) >= least for leaf, least in wanted.items())


def check_total(world: World, wanted: dict[str, int]) -> None:
    assert {gang: world.count(world.gang_pods[gang]) for gang in wanted} == wanted


def check_one_gang(world: World, wanted: list[str]) -> None:
    counts = {gang: (world.count(world.gang_pods[gang]), len(world.gang_pods[gang])) for gang in wanted}
    assert sorted(have == want for have, want in counts.values()) == [False] * (len(wanted) - 1) + [True]
    assert sum(1 for have, _ in counts.values() if have) == 1


def check_same_domain(world: World, wanted: list[Any]) -> None:
    for level, pods in wanted:
        assert len({world.domain(name, level) for name in pods}) == 1


def check_max_domains(world: World, wanted: list[Any]) -> None:
    for level, pods, most in wanted:
        assert len({world.domain(name, level) for name in pods}) <= most


def check_subtrees(world: World, wanted: dict[str, int]) -> None:
    said = {one.name.removeprefix("default/"): one.admitted for one in world.verdicts.groups}
    assert all(said[name] >= least for name, least in wanted.items())


def check_atomic(world: World, wanted: list[str]) -> None:
    counts = {leaf: (world.count(world.leaf_pods[leaf]), len(world.leaf_pods[leaf])) for leaf in wanted}
    assert {leaf: have for leaf, (have, size) in counts.items() if have not in (0, size)} == {}


def check_at_least(world: World, wanted: int) -> None:
    assert world.count(world.pods) >= wanted


def check_stays(world: World, wanted: list[str]) -> None:
    assert [name for name in wanted if world.where(name) != world.at_start[name] and world.at_start[name]] == []


def check_reason(world: World, wanted: dict[str, str]) -> None:
    said = {one.name.removeprefix("default/"): one.reason for one in world.verdicts.groups}
    assert all(said[gang] in REASONS[code] for gang, code in wanted.items())


def informative(world: World, wanted: Any) -> None:
    """What the peer does; the corpus does not ask for it."""


CHECKS = {
    "bound": check_bound, "unbound": check_unbound, "bound_all": check_all, "unbound_all": check_none,
    "on": check_on, "bound_count": check_count, "bound_count_min": check_count_min,
    "bound_count_total": check_total, "exactly_one_gang_bound": check_one_gang,
    "same_domain": check_same_domain, "max_domains": check_max_domains, "subtree_min": check_subtrees,
    "atomic": check_atomic, "bound_at_least_pods": check_at_least, "not_moved": check_stays,
    "not_evicted": check_stays, "reason": check_reason, "peer_exact": informative,
    "peer_exact_counts": informative,
}  # fmt: skip


def test_every_applicable_scenario_ends_as_the_corpus_says() -> None:
    applicable = [scenario for scenario in scenarios() if is_applicable(scenario)]
    failed = {}
    for scenario in applicable:
        world = World(scenario)
        for number, step in enumerate(scenario["steps"]):
            world.do(step["do"])
            try:
                check(world, step["expect"])
            except AssertionError as error:
                failed[f"{scenario['id']} step {number}"] = str(error)
    assert failed == {}
    assert len(applicable) == APPLICABLE, "scenarios run; the rest of the 96 needs what is not built"
