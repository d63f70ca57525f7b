"""Run the neutral gang corpus through the pure core: `python -m gangscheduler.conformance SCENARIOS.json`.

Rules:
1. Every step changes the world, then decides and binds until nothing is bound any more, then is checked.
2. A scenario that allows or expects an eviction or a move is run like the others, and listed as not yet.
3. `--placements OUT.json` writes what every pod came to, for another program to check. Exit code 1 when a scenario that
   is not "not yet" fails, 2 for bad input.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gangscheduler.expectations import State, failures
from gangscheduler.model import Reason, Verdict, Verdicts
from gangscheduler.place import place
from gangscheduler.scenario import Raw, UnknownAction, World, parts

FORMAT = "gang-scenarios/v1"
MOST_CYCLES = 100

# Our reason codes in the corpus's words.
CODES: dict[Reason, str] = {
    Reason.INSUFFICIENT_RESOURCE: "insufficient-capacity",
    Reason.NODES_UNSCHEDULABLE: "insufficient-capacity",
    Reason.SELECTOR_MISMATCH: "insufficient-capacity",
    Reason.SIBLING_FLOOR_FIRST: "insufficient-capacity",
    Reason.NOMINATED: "insufficient-capacity",
    Reason.FRAGMENTED: "fragmented",
    Reason.MINIMUM_NOT_MET: "quorum-missing",
    Reason.INCOMPLETE_GROUP: "quorum-missing",
    Reason.OVER_QUOTA: "over-quota",
    Reason.POD_TOO_LARGE: "pod-too-large",
    Reason.CONFLICTING_PLACED_SIBLINGS: "conflicting-placed-siblings",
    Reason.NO_CAPACITY_NEAR_SIBLINGS: "no-capacity-near-siblings",
}
EVICTING = (
    "evicted", "evicted_count", "evicted_total", "exactly_one_gang_evicted", "exactly_one_subtree_evicted",
    "moved_total", "moved_total_max", "lost",
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """One scenario: what every step came to, and what was not as expected."""

    id: str
    steps: tuple[dict[str, Any], ...]
    problems: tuple[str, ...]
    not_yet: bool


def is_not_yet(scenario: Raw) -> bool:
    """Whether it allows or expects evictions, which this scheduler does not do."""
    steps = scenario["steps"]
    allowed = {one for step in steps for one in step["do"].get("allow", ("allocate",))}
    return allowed != {"allocate"} or any(key in step["expect"] for step in steps for key in EVICTING)


def run(scenario: Raw) -> Result:
    """Play a scenario to its end. Raises KeyError, UnknownAction for one that is not of the format."""
    world, steps, problems = World(scenario), [], []
    for number, step in enumerate(scenario["steps"]):
        world.apply(step["do"])
        verdicts = settle(world)
        reasons = {gang["name"]: said for gang in world.gangs if (said := _reason(gang, verdicts))}
        nominated = {one.pod: one.node for one in verdicts.nominations}
        state = State(world, nominated, reasons)
        problems += [f"step {number + 1}: {problem}" for problem in failures(state, step["expect"])]
        steps.append({"bound": world.bound(), "nominated": nominated, "evicted": [], "reasons": reasons})
    return Result(scenario["id"], tuple(steps), tuple(problems), is_not_yet(scenario))


def settle(world: World) -> Verdicts:
    """Decide and bind until nothing is bound any more; the last verdicts."""
    for _ in range(MOST_CYCLES):
        verdicts = place(world.snapshot())
        for binding in verdicts.bindings:
            world.members[binding.pod].node = binding.node
        if not verdicts.bindings and not world.arrive():
            break
    return verdicts


def _reason(gang: Raw, verdicts: Verdicts) -> dict[str, Any] | None:
    said = {verdict.name: verdict for verdict in verdicts.groups}
    return reason_of(gang, [said[f"{gang['name']}/{part['name']}"] for part in parts(gang["tree"])])


def reason_of(gang: Raw, own: Sequence[Verdict]) -> dict[str, Any] | None:
    """Code and numbers of a gang, from the verdicts of its tree's groups in `parts`' order; None when nothing waits."""
    if own[0].reason is Reason.FITS:
        return None
    numbers = _numbers(gang["tree"], own)
    detail = {
        "groups_fit": numbers.placeable_now,
        "wanted": max(numbers.floor, numbers.admitted),
        "desired": numbers.desired,
        "admitted": numbers.admitted,
        "limiting_resource": own[0].limiting_resource,
        "limiting_level": own[0].limiting_level,
        "message": own[0].message,
    }
    return {"code": CODES.get(own[0].reason, "insufficient-capacity"), "detail": detail}


def _numbers(tree: Raw, own: Sequence[Verdict]) -> Verdict:
    """The verdict that counts TP groups: of the first group of leaves that lacks some, else of the root."""
    for part, verdict in zip(parts(tree), own, strict=True):
        of_leaves = "children" in part and all("pods" in child for child in part["children"])
        if of_leaves and verdict.placeable_now < verdict.floor:
            return verdict
    return own[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m gangscheduler.conformance", description="Run gang scenarios through the scheduler's core."
    )
    parser.add_argument("scenarios", type=Path, metavar="SCENARIOS.json", help=f"a file of the format {FORMAT}")
    parser.add_argument("--placements", type=Path, metavar="OUT.json", help="write every step's placements there")
    options = parser.parse_args(arguments)
    try:
        corpus = json.loads(options.scenarios.read_text(encoding="utf-8"))
        if corpus.get("format") != FORMAT:
            raise ValueError(f"format={corpus.get('format')!r}: expected {FORMAT!r}")
        results = [run(scenario) for scenario in corpus["scenarios"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UnknownAction) as error:
        problem = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
        print(
            f"conformance: {options.scenarios}: {problem}; expected scenarios as its conventions say", file=sys.stderr
        )
        return 2
    if options.placements:
        placements = [{"id": result.id, "steps": result.steps} for result in results]
        options.placements.write_text(json.dumps(placements, indent=1) + "\n", encoding="utf-8")
    return _report(results)


def _report(results: Iterable[Result]) -> int:
    passed, failed, later = list[Result](), list[Result](), list[Result]()
    for result in results:
        (later if result.not_yet else failed if result.problems else passed).append(result)
    for result in failed:
        print(f"FAILED {result.id}: {'; '.join(result.problems)}")
    print(f"{len(passed)} passed, {len(failed)} failed")
    if later:
        print(f"not yet (they allow or expect evictions or moves): {', '.join(result.id for result in later)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
