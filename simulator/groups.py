"""A TP group in the simulated cluster: its pods as one, from the moment it is made until they are gone."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from policies.model import Role
from simulator.clock import Entry
from simulator.driver import EngineDriver

if TYPE_CHECKING:
    from simulator.flight import Flight


class Phase(Enum):
    """Where a group stands."""

    PENDING = "pending"
    """Its pods have no nodes."""
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    GONE = "gone"


@dataclass(slots=True, eq=False)
class Group:
    """One TP group. `load` and `last_turn` are the router's account of it, as in serving/pool.py: prompt tokens that a
    prefill group has not computed, sequences of a decode group. `flights`: all requests that it would take along.
    """

    role: Role
    index: int
    uid: str
    pods: tuple[str, ...]
    created_s: float
    phase: Phase = Phase.PENDING
    nodes: tuple[str, ...] = ()
    ready_s: float = 0.0
    waited_s: float = 0.0
    """How long it had no nodes."""
    driver: EngineDriver | None = None
    entry: Entry | None = None
    """The end of its start, or of its time to drain."""
    load: int = 0
    last_turn: int = 0
    link_free_s: float = 0.0
    flights: dict[Flight, None] = field(default_factory=dict)
    unread: str = ""
    """Why its page cannot be read, or nothing."""

    @property
    def leader(self) -> str:
        """The pod whose page speaks for the group."""
        return self.pods[0]

    @property
    def leaving(self) -> bool:
        """Whether it is on its way out, or gone."""
        return self.phase in (Phase.DRAINING, Phase.GONE)

    @property
    def engine(self) -> EngineDriver:
        """Its engine. Raises RuntimeError before it is ready."""
        if self.driver is None:
            raise RuntimeError(f"{self.leader}: has no engine in phase {self.phase.value}")
        return self.driver
