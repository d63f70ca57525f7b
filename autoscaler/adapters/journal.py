"""The decision journal: every observation and decision as JSON lines, so that a bug report replays.

Rules:
1. Every file replays alone: its first line holds settings, profile and the state before its first tick.
   So a new process, and new settings, start a new file.
2. Lines are appended and flushed one by one. A crash can tear only the last line, which a reader leaves out.
3. The journal never stops the controller: a disk that is full costs lines, not decisions.

Files: `PATH` is being written, `PATH.1` is the one before, up to `PATH.<keep>`.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from autoscaler.codec import CodecError, decode, encode
from autoscaler.errors import UserError
from autoscaler.model import Condition, Decision, Demand, Forecast, Observation, Signals, State, Step, Target
from autoscaler.settings import Settings, parse_settings
from perfmodel.profile import Profile
from policies.model import Reason

VERSION = 3
MAX_BYTES = 16 * 1024 * 1024
KEEP = 5

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recorded:
    """A decision without the state that it hands on: that follows from the lines before."""

    target: Target | None
    step: Step | None
    why: tuple[Reason, ...]
    conditions: tuple[Condition, ...]
    signals: Signals
    forecast: Forecast

    @classmethod
    def of(cls, decision: Decision) -> Recorded:
        """What is kept of a decision."""
        return cls(
            decision.target, decision.step, decision.why, decision.conditions, decision.signals, decision.forecast
        )


@dataclass(frozen=True, slots=True)
class Tick:
    """One line: where it stands, what was seen, what was decided."""

    line: int
    observation: Observation
    decision: Recorded


@dataclass(frozen=True, slots=True)
class Journal:
    """One file, read."""

    path: Path
    settings: Settings
    profile: Profile
    state: State
    ticks: tuple[Tick, ...]


class JournalWriter:
    """Appends ticks to PATH. Raises UserError at once if that cannot be written."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES, keep: int = KEEP) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._file: BinaryIO | None = None
        self._bytes = 0
        self._head: tuple[Settings, Profile] | None = None
        self._failed = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.open("ab").close()
        except OSError as error:
            raise UserError(f"journal {path}: cannot be written: {error.strerror}; choose another path") from error

    def append(
        self, state: State, observation: Observation, settings: Settings, profile: Profile, decision: Decision
    ) -> None:
        """Write one tick: what `tick` was given, and what it returned."""
        line = _line(
            type="tick",
            observation=encode(Observation, observation),
            decision=encode(Recorded, Recorded.of(decision)),
        )
        try:
            if self._head != (settings, profile) or self._bytes + len(line) > self._max_bytes:
                self._begin(state, settings, profile)
            self._write(line)
            self._failed = False
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Close the file; the next append starts a new one."""
        if self._file is not None:
            self._file.close()
        self._file, self._head = None, None

    def _begin(self, state: State, settings: Settings, profile: Profile) -> None:
        self.close()
        if self._path.exists() and self._path.stat().st_size:
            self._rotate()
        self._file = self._path.open("wb")
        self._bytes = 0
        self._write(
            _line(
                type="state",
                version=VERSION,
                roleratio=metadata.version("roleratio"),
                settings=settings.model_dump(mode="json", by_alias=True, exclude_none=True),
                profile=encode(Profile, profile),
                state=encode(State, state),
            )
        )
        self._head = (settings, profile)

    def _rotate(self) -> None:
        if self._keep == 0:
            return
        for older in range(self._keep, 1, -1):
            younger = numbered(self._path, older - 1)
            if younger.exists():
                os.replace(younger, numbered(self._path, older))
        os.replace(self._path, numbered(self._path, 1))

    def _write(self, line: bytes) -> None:
        assert self._file is not None
        self._file.write(line)
        self._file.flush()
        self._bytes += len(line)

    def _give_up(self, error: OSError) -> None:
        if not self._failed:
            _LOG.error("journal %s: cannot be written: %s; decisions go on unrecorded", self._path, error.strerror)
        self._failed = True
        try:
            self.close()
        except OSError:
            # Closing tries to flush what could not be written; the file is given up either way.
            self._file, self._head = None, None


def read_journal(path: Path) -> Journal:
    """One file. Raises UserError that names file and line; a torn last line only gives a warning."""
    lines = _lines(path)
    number, head = next(lines, (1, None))
    settings, profile, state = _read_head(path, number, head)
    return Journal(path, settings, profile, state, tuple(_read_tick(path, number, data) for number, data in lines))


def read_demands(path: Path) -> tuple[Settings, list[Demand]]:
    """Whose file it is, and the demand that each tick saw; a tenth of the work of reading all. Raises UserError."""
    lines = _lines(path)
    settings, _, _ = _read_head(path, *next(lines, (1, None)))
    return settings, [_read_demand(path, number, data) for number, data in lines]


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Decoded lines with their numbers."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"journal {path}: cannot be read: {error.strerror}; give an existing file") from error
    complete, _, torn = raw.rpartition(b"\n")
    lines = complete.split(b"\n") if complete else []
    if torn and lines:
        _LOG.warning("journal %s:%d: the last line is torn and left out", path, len(lines) + 1)
    for number, line in enumerate(lines, start=1):
        try:
            yield number, json.loads(line)
        except ValueError:
            _refuse(path, number, "not JSON")


def _read_head(path: Path, number: int, head: Any) -> tuple[Settings, Profile, State]:
    if not isinstance(head, dict) or head.get("type") != "state":
        _refuse(path, number, 'not a roleratio journal: its first line must be an object of type "state"')
    if head.get("version") != VERSION:
        _refuse(path, number, f"version {head.get('version')!r}, but this roleratio reads version {VERSION}")
    settings = parse_settings(head.get("settings"), f"journal {path}:{number}: settings")
    try:
        return settings, decode(Profile, head.get("profile")), decode(State, head.get("state"))
    except CodecError as error:
        _refuse(path, number, str(error))


def _read_tick(path: Path, number: int, data: Any) -> Tick:
    if not isinstance(data, dict) or data.get("type") != "tick":
        _refuse(path, number, 'corrupt: expected an object of type "tick"')
    try:
        return Tick(number, decode(Observation, data.get("observation")), decode(Recorded, data.get("decision")))
    except CodecError as error:
        _refuse(path, number, f"corrupt: {error}")


def _read_demand(path: Path, number: int, data: Any) -> Demand:
    try:
        return decode(Demand, data["decision"]["signals"]["demand"])
    except (CodecError, KeyError, TypeError) as error:
        _refuse(path, number, f"corrupt: {error}")


def _refuse(path: Path, number: int, why: str) -> NoReturn:
    raise UserError(f"journal {path}:{number}: {why}; give a journal that `roleratio controller` wrote")


def _line(**fields: Any) -> bytes:
    return json.dumps(fields, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def numbered(path: Path, number: int) -> Path:
    """The file that was written `number` files before the one at PATH."""
    return path.with_name(f"{path.name}.{number}") if number else path
