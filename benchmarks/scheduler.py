"""The gang scheduler's pure part on a large cluster: snapshot, placement, what-if.

How: 500 nodes of 8 GPUs and 50 services with a prefill and a decode PodGroup of `groups` TP groups each, two pods of
one GPU per TP group. "All pending" is a cluster that starts empty; "one new group" is one where all run but the last.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.figure import Figure, figure
from benchmarks.objects import CREATED_S, bound, nodes, service
from benchmarks.processes import BenchmarkError
from benchmarks.stopwatch import repeat
from gangscheduler.model import Snapshot
from gangscheduler.place import how_many_fit, place
from gangscheduler.snapshot import build, group_shape
from kubeapi.client import Object
from roleratio.demo import manifests

FIT_LIMIT = 64


@dataclass(frozen=True, slots=True)
class Sizes:
    """The cluster, and how often each thing is done."""

    nodes: int = 500
    gpus_per_node: int = 8
    services: int = 50
    groups: int = 10
    repeats: int = 10


DEFAULT = Sizes()


def measure(sizes: Sizes = DEFAULT) -> list[Figure]:
    """All figures of the scheduler."""
    node_list = nodes(sizes.nodes, sizes.gpus_per_node)
    services = [service(f"team-{index}", sizes.groups, sizes.groups) for index in range(sizes.services)]
    podgroups = [podgroup for _, found, _ in services for podgroup in found]
    pods = [pod for _, _, pending in services for pod in pending if "schedulingGroup" in pod["spec"]]
    snapshot, build_ms = repeat(lambda: build(CREATED_S, node_list, pods, podgroups), sizes.repeats)
    verdicts, all_ms = repeat(lambda: place(snapshot), sizes.repeats)
    if len(verdicts.bindings) != len(pods):
        raise BenchmarkError(f"{len(verdicts.bindings)} of {len(pods)} pods were placed; the cluster should hold them")
    hosts = {binding.pod: binding.node for binding in verdicts.bindings}
    almost = _all_but_one_group(pods, hosts, node_list, podgroups)
    one, one_ms = repeat(lambda: place(almost), sizes.repeats)
    if len(one.bindings) != manifests.PODS_PER_GROUP:
        raise BenchmarkError(f"{len(one.bindings)} pods were placed; expected one TP group")
    template = group_shape(services[0][0][0])
    fit, fit_ms = repeat(lambda: how_many_fit(almost, template, FIT_LIMIT), sizes.repeats)
    size = f"{len(node_list)} nodes, {len(podgroups)} PodGroups, {len(pods)} pods"
    return [
        figure(f"{size}: build the snapshot", "ms", build_ms),
        figure("place, all pending", "ms", all_ms),
        figure("place, one new group", "ms", one_ms),
        figure(f"how_many_fit (found {fit.groups}, limit {FIT_LIMIT})", "ms", fit_ms),
    ]


def _all_but_one_group(
    pods: list[Object], hosts: dict[str, str], node_list: list[Object], podgroups: list[Object]
) -> Snapshot:
    """Everything runs where it was placed, but the last TP group has just been created."""
    old, new = pods[: -manifests.PODS_PER_GROUP], pods[-manifests.PODS_PER_GROUP :]
    places = [hosts[f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"] for pod in old]
    return build(CREATED_S, node_list, [*bound(old, places), *new], podgroups)
