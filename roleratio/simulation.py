"""Runs scenarios: opens what a scenario file names, makes policies by their names, and runs them in virtual time.

Rules:
1. The simulator is pure; files are opened here, and randomness comes from here: `random.Random`, seeded by the seed and
   the name of what it is for, which gives the same numbers on every machine.
2. A run is a function of (scenario file, policy, seed) to plain data, so that a sweep can spread runs over processes or
   machines.
"""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Iterator
from pathlib import Path

from autoscaler.errors import UserError
from autoscaler.settings import read_yaml
from perfmodel.profile import Profile, ProfileError, load_profile
from policies.model import ROLES
from roleratio import measured, traces, workload
from simulator.arrivals import Request, copied, gaps, recorded
from simulator.generate import generated, spans_of
from simulator.port import Policy
from simulator.result import Result, Span
from simulator.rng import Rng, Streams
from simulator.roster import Past, make_policy, started_for
from simulator.scenario import Scenario, ServeGenLoad, TraceLoad, parse_scenario
from simulator.servegen import ServeGen, ServeGenError, parse
from simulator.world import Load, Watch, World

SHIPPED = Path(__file__).parent / "scenarios"


def shipped_scenarios() -> tuple[str, ...]:
    """The names that `load_scenario` knows."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.yaml")))


def find_scenario(name: str) -> Path:
    """A shipped scenario by its name, or any by its path. Raises UserError."""
    if "/" in name or name.endswith((".yaml", ".yml")):
        return Path(name)
    if name in shipped_scenarios():
        return SHIPPED / f"{name}.yaml"
    known = ", ".join(shipped_scenarios())
    raise UserError(f"scenario {name!r}: no such scenario; shipped are {known}; or give a path to a .yaml file")


def load_scenario(path: Path) -> Scenario:
    """Read a scenario file. Raises UserError with one line per problem."""
    return parse_scenario(read_yaml(path, f"scenario {path}"), f"scenario {path}")


def streams(seed: int) -> Streams:
    """Generators of one seed, one per name."""

    def stream(name: str) -> Rng:
        return random.Random(f"{seed}/{name}")

    return stream


class Prepared:
    """A scenario with its profiles and its trace, checked and ready to run. Raises UserError.

    `profile` is how fast its engines are, `told` what the policy is told of them.
    """

    def __init__(self, path: Path, traces_folder: Path | None = None) -> None:
        self.scenario = load_scenario(path)
        self._folder = traces_folder or path.parent
        told = self.scenario.autoscaler.profile
        self.told = _profile(self.scenario, path.parent, told)
        self.profile = _profile(self.scenario, path.parent, self.scenario.fleet.profile or told)
        for role in ROLES:
            self.scenario.shape(role, self.profile.gpus)
        load = self.scenario.load
        self._trace = None if load.trace is None else self._recorded(load.trace)
        self._servegen = None if load.servegen is None else self._demand(load.servegen)
        self._measured = None if load.measured is None else measured.read(self._folder / load.measured.file)

    def load(self, seed: int) -> Load:
        """What comes, made anew: a load is used up by a run."""
        scenario, make = self.scenario, streams(seed)
        if scenario.load.demo:
            built_in = workload.arrivals(seed, scenario.duration_s)
            spans = [Span(span.name, span.start_s, span.end_s) for span in workload.spans(scenario.duration_s)]
            return Load(((one.at_s, one.input_tokens, one.output_tokens) for one in built_in), spans)
        if self._trace is not None and scenario.load.trace is not None:
            return Load(self._replayed(scenario.load.trace, self._trace, make), ())
        if self._servegen is not None and scenario.load.servegen is not None:
            came = self._sent_by_clients(scenario.load.servegen, self._servegen, make, scenario.duration_s)
            return Load(came, ())
        if self._measured is not None and (part := scenario.load.measured) is not None:
            longest = self.profile.max_model_len
            return Load(measured.requests(self._measured, gaps(part.process, part.cv), part.sigma, longest, make), ())
        return Load(generated(scenario, make), spans_of(scenario))

    def run(self, policy: str, seed: int, watch: Watch | None = None) -> Result:
        """One run. Raises UserError for a policy that is not known."""
        made = self.policy(policy, seed)
        scenario = started_for(policy, self.scenario)
        return World(scenario, self.profile, self.load(seed), made, streams(seed), seed).run(watch)

    def policy(self, name: str, seed: int) -> Policy:
        """A policy by its name. Raises UserError."""
        return make_policy(
            name, self.scenario, self.told, lambda: self.load(seed).requests, self.profile, lambda: self.past(seed)
        )

    def past(self, seed: int) -> Past:
        """What came before the scenario's begin, as far as the data has it and the scenario says that it is stored."""
        part = self.scenario.load.servegen
        length_s = min(self.scenario.history_s, part.start_s) if part else 0.0
        if part is None or self._servegen is None or not length_s:
            return Past()
        earlier = part.model_copy(update={"start_s": part.start_s - length_s})
        came = self._sent_by_clients(earlier, self._servegen, streams(seed), length_s)
        return Past(-length_s, ((at_s - length_s, prompt, output) for at_s, prompt, output in came))

    def check_policy(self, name: str) -> None:
        """Raises UserError for a policy that cannot be made; makes no requests."""
        make_policy(name, self.scenario, self.told, lambda: (), self.profile)

    def _recorded(self, part: TraceLoad) -> list[Request]:
        trace = traces.read(self._folder / part.file)
        found = [(one.at_s, one.input_tokens, one.output_tokens) for one in trace.arrivals]
        if part.start_s > trace.span_s:
            raise UserError(
                f"scenario {self.scenario.name}: load.trace.startS {part.start_s:g}: expected less than the trace's "
                f"{trace.span_s:g} s"
            )
        return found

    def _replayed(self, part: TraceLoad, trace: list[Request], make: Streams) -> Iterator[Request]:
        sent = recorded(trace, start_s=part.start_s, speed=part.speed, duration_s=self.scenario.duration_s)
        if part.copies == 1 and not part.within_s:
            return sent
        return copied(sent, part.copies, part.within_s, make("copies"))

    def _sent_by_clients(
        self, part: ServeGenLoad, found: ServeGen, make: Streams, duration_s: float
    ) -> Iterator[Request]:
        return found.requests(
            make, part.start_s, duration_s, part.scale, stretch=part.stretch, longer=part.length_factor
        )

    def _demand(self, part: ServeGenLoad) -> ServeGen:
        windows, lengths = self._folder / part.windows, self._folder / part.lengths
        try:
            found = parse(_lines(windows), _lines(lengths))
        except ServeGenError as error:
            raise UserError(f"scenario {self.scenario.name}: {windows} or {lengths}: {error}") from error
        if part.start_s >= found.span_s:
            raise UserError(
                f"scenario {self.scenario.name}: load.servegen.startS {part.start_s:g}: expected less than the data's "
                f"{found.span_s:g} s"
            )
        return found


def _profile(scenario: Scenario, folder: Path, name: str) -> Profile:
    try:
        return load_profile(folder / name if name.endswith(".json") else name)
    except ProfileError as error:
        raise UserError(*(f"scenario {scenario.name}: {problem}" for problem in error.problems)) from error


def _lines(path: Path) -> list[str]:
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw).decode("utf-8")
    except FileNotFoundError:
        raise UserError(f"trace {path}: no such file; give the path of a ServeGen file") from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"trace {path}: cannot be read: {error}") from error
    return text.splitlines()
