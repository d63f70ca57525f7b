"""What a scenario expects of a world after a step, as one function for each kind of expectation.

Rule: a check says in words what is wrong, or nothing; an expectation that is not known here is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gangscheduler.scenario import Raw, World


@dataclass(frozen=True)
class State:
    """The world after a step, with the scheduler's words."""

    world: World
    nominated: Mapping[str, str]
    reasons: Mapping[str, Mapping[str, Any]]


Check = Callable[[State, Any], Iterator[str]]


def failures(state: State, expect: Raw) -> list[str]:
    """Everything that is not as expected."""
    return [
        f"{key}: {problem}"
        for key, wanted in expect.items()
        for problem in (CHECKS[key](state, wanted) if key in CHECKS else ("not a known expectation",))
    ]


def _bound(state: State, wanted: Iterable[str]) -> Iterator[str]:
    yield from (f"{name} is on no node" for name in wanted if not state.world.where(name))


def _unbound(state: State, wanted: Iterable[str]) -> Iterator[str]:
    yield from (f"{name} is on {state.world.where(name)}" for name in wanted if state.world.where(name))


def _new(state: State) -> list[str]:
    return [name for name, node in state.world.at_start.items() if not node and name in state.world.members]


def _bound_all(state: State, wanted: bool) -> Iterator[str]:
    yield from _bound(state, _new(state)) if wanted else ()


def _unbound_all(state: State, wanted: bool) -> Iterator[str]:
    yield from _unbound(state, _new(state)) if wanted else ()


def _on(state: State, wanted: Raw) -> Iterator[str]:
    for name, nodes in wanted.items():
        allowed = [nodes] if isinstance(nodes, str) else nodes
        if state.world.where(name) not in allowed:
            yield f"{name} is on {state.world.where(name) or 'no node'}, not on {' or '.join(allowed)}"


def _domains(state: State, level: str, pods: Iterable[str]) -> set[tuple[str, ...]]:
    return {state.world.domain(state.world.where(name), level) for name in pods if state.world.where(name)}


def _same_domain(state: State, wanted: Iterable[Any]) -> Iterator[str]:
    yield from (f"{pods} lie in several {level}s" for level, pods in wanted if len(_domains(state, level, pods)) > 1)


def _different_domain(state: State, wanted: Iterable[Any]) -> Iterator[str]:
    for level, pods in wanted:
        on_nodes = [name for name in pods if state.world.where(name)]
        if len(_domains(state, level, pods)) < len(on_nodes):
            yield f"{pods} share a {level}"


def _max_domains(state: State, wanted: Iterable[Any]) -> Iterator[str]:
    for level, pods, most in wanted:
        if len(_domains(state, level, pods)) > most:
            yield f"{pods} lie in more than {most} {level}s"


def _count(state: State, name: str) -> int:
    return sum(1 for pod in state.world.pods_of(name) if state.world.where(pod))


def _bound_count(state: State, wanted: Raw) -> Iterator[str]:
    for name, count in wanted.items():
        if _count(state, name) != count:
            yield f"{name} has {_count(state, name)} pods on nodes, not {count}"


def _bound_count_min(state: State, wanted: Raw) -> Iterator[str]:
    for name, least in wanted.items():
        if _count(state, name) < least:
            yield f"{name} has {_count(state, name)} pods on nodes, less than {least}"


def _count_on(state: State, wanted: Raw) -> Iterator[str]:
    for node, count in wanted.items():
        here = sum(1 for one in state.world.bound().values() if one == node)
        if here != count:
            yield f"{node} has {here} pods of gangs, not {count}"


def _at_least(state: State, wanted: int) -> Iterator[str]:
    if len(state.world.bound()) < wanted:
        yield f"{len(state.world.bound())} pods are on nodes, less than {wanted}"


def _is_whole(state: State, name: str) -> bool:
    return _count(state, name) == len(state.world.pods_of(name)) > 0


def _exactly_one(state: State, wanted: Iterable[str]) -> Iterator[str]:
    yield from _exactly(state, {"of": wanted, "count": 1})


def _exactly(state: State, wanted: Raw) -> Iterator[str]:
    counts = {name: _count(state, name) for name in wanted["of"]}
    whole = [name for name in counts if _is_whole(state, name)]
    halves = [name for name, count in counts.items() if count and name not in whole]
    if len(whole) != wanted["count"] or halves:
        yield f"pods on nodes: {counts}; {wanted['count']} whole and the others empty are expected"


def _subtree_min(state: State, wanted: Raw) -> Iterator[str]:
    for name, least in wanted.items():
        whole = sum(1 for child in state.world.children_of(name) if _is_whole(state, child["name"]))
        if whole < least:
            yield f"{name} has {whole} whole children, less than {least}"


def _atomic(state: State, wanted: Iterable[str]) -> Iterator[str]:
    yield from (f"{name} is on nodes in part" for name in wanted if _count(state, name) and not _is_whole(state, name))


def _stays(state: State, wanted: Iterable[str]) -> Iterator[str]:
    for name in wanted:
        if state.world.at_start[name] and state.world.where(name) != state.world.at_start[name]:
            yield f"{name} was moved or evicted"


def _nothing(state: State, wanted: Any) -> Iterator[str]:
    """Nothing is evicted or moved here, and what a peer does is not asked for."""
    yield from ()


def _none_evicted(state: State, wanted: Any) -> Iterator[str]:
    if wanted:
        yield "nothing is evicted"


def _nominated(state: State, wanted: Any) -> Iterator[str]:
    nodes = wanted if isinstance(wanted, Mapping) else dict.fromkeys(wanted)
    for name, allowed in nodes.items():
        listed = [allowed] if isinstance(allowed, str) else allowed
        if name not in state.nominated or (listed and state.nominated[name] not in listed):
            yield f"{name} is nominated to {state.nominated.get(name, 'no node')}"


def _nominated_count(state: State, wanted: Raw) -> Iterator[str]:
    for name, count in wanted.items():
        found = sum(1 for pod in state.world.pods_of(name) if pod in state.nominated)
        if found != count:
            yield f"{found} pods of {name} are nominated, not {count}"


def _reason(state: State, wanted: Raw) -> Iterator[str]:
    for gang, code in wanted.items():
        said = state.reasons.get(gang, {}).get("code")
        if said != code:
            yield f"{gang} waits because of {said}, not {code}"


def _reason_detail(state: State, wanted: Raw) -> Iterator[str]:
    for gang, numbers in wanted.items():
        detail = state.reasons.get(gang, {}).get("detail", {})
        for key, value in numbers.items():
            if detail.get(key) != value:
                yield f"{gang}: {key} is {detail.get(key)}, not {value}"


def _free_left(state: State, wanted: Raw) -> Iterator[str]:
    for node, amounts in wanted.items():
        raw = next(raw for raw in state.world.scenario["nodes"] if raw["name"] == node)
        for resource, left in amounts.items():
            used = sum(one.raw["request"].get(resource, 0) for one in state.world.members.values() if one.node == node)
            if raw["capacity"].get(resource, 0) - used != left:
                yield f"{node} has {raw['capacity'].get(resource, 0) - used} {resource} left, not {left}"


CHECKS: Mapping[str, Check] = {
    "bound": _bound,
    "unbound": _unbound,
    "bound_all": _bound_all,
    "unbound_all": _unbound_all,
    "on": _on,
    "same_domain": _same_domain,
    "different_domain": _different_domain,
    "max_domains": _max_domains,
    "bound_count": _bound_count,
    "bound_count_min": _bound_count_min,
    "bound_count_total": _bound_count,
    "bound_at_least_pods": _at_least,
    "count_on": _count_on,
    "exactly_one_gang_bound": _exactly_one,
    "exactly_one_subtree_bound": _exactly_one,
    "subtrees_bound_exactly": _exactly,
    "subtree_min": _subtree_min,
    "atomic": _atomic,
    "not_moved": _stays,
    "not_evicted": _stays,
    "evicted": _none_evicted,
    "evicted_count": _none_evicted,
    "evicted_total": _none_evicted,
    "exactly_one_gang_evicted": _none_evicted,
    "exactly_one_subtree_evicted": _none_evicted,
    "nominated": _nominated,
    "nominated_count": _nominated_count,
    "nominated_same_domain": _nothing,
    "moved_total": _none_evicted,
    "moved_total_max": _nothing,
    "lost": _none_evicted,
    "reason": _reason,
    "reason_detail": _reason_detail,
    "free_left": _free_left,
    "peer_exact": _nothing,
    "peer_exact_counts": _nothing,
}
