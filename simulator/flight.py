"""One request on its way through router, prefill, transfer and decode, and why it missed its SLO if it did."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import TYPE_CHECKING

from simulator.job import Job

if TYPE_CHECKING:
    from simulator.groups import Group


class Outcome(IntEnum):
    """How a request ended."""

    OK = 0
    FAILED = 1
    UNFINISHED = 2


class Cause(IntEnum):
    """Why a request is a miss; NONE if it is none. The first that applies, from the top."""

    NONE = 0
    UNFINISHED = 1
    """The run ended before it."""
    FAULT = 2
    """Its group died under it, or four workers failed it."""
    DRAIN = 3
    """Its group was cut at the drain limit."""
    NO_WORKER = 4
    """No worker of a role was ready for as long as it may wait."""
    REJECTED = 5
    """No group could ever hold it."""
    PROMPT = 6
    """Its prompt alone takes longer than the TTFT target: no size can help."""
    COLD_START = 7
    """It waited for prefill or for room in decode, and groups of that role were starting when it came."""
    BURST = 8
    """It waited for prefill, and no group was on its way when it came."""
    DECODE_ROOM = 9
    """It waited for room in decode, and no group was on its way when it came."""
    TRANSFER = 10
    """Its KV took longer than anything else."""
    DECODE_BATCH = 11
    """Its mean ITL was over the target."""


class Stage(Enum):
    """Whose turn it is, as our router counts it."""

    UNASSIGNED = "unassigned"
    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(slots=True, eq=False)
class Flight:
    """A request's stamps, None until then. `starting`: roles that had groups starting when it came, as bits."""

    at_s: float
    prompt_tokens: int
    output_tokens: int
    starting: int = 0
    failures: int = 0
    stage: Stage = Stage.UNASSIGNED
    prefill: Group | None = None
    decode: Group | None = None
    prefill_job: Job | None = None
    decode_job: Job | None = None
    computed_s: float | None = None
    room_s: float | None = None
    arrived_s: float | None = None
    first_s: float | None = None
    end_s: float | None = None

    @property
    def mean_itl_s(self) -> float | None:
        """The mean time between two tokens; None with fewer than two."""
        if self.first_s is None or self.end_s is None or self.output_tokens < 2:
            return None
        return (self.end_s - self.first_s) / (self.output_tokens - 1)

    def again(self) -> None:
        """Back to the beginning, with one more failure."""
        self.failures += 1
        self.stage = Stage.UNASSIGNED
        self.prefill = self.decode = None
        self.prefill_job = self.decode_job = None
        self.computed_s = self.room_s = self.arrived_s = None
