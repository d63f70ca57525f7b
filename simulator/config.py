"""How one simulated engine is set up, in vLLM's terms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from perfmodel.profile import Profile
from perfmodel.steps import StepCosts

BLOCK_TOKENS = 16


class Mode(Enum):
    """What an engine does with a request."""

    BOTH = "both"
    PREFILL = "prefill"
    DECODE = "decode"


class EngineError(ValueError):
    """A setting that cannot be simulated; one line per problem."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """vLLM's settings of the same names; the defaults are vLLM's.

    `kv_blocks` None: no limit is known. `async_scheduling`: the next step is planned while one runs, so that what has
    arrived or become free waits for one more step. `prefix_caching`: what a job says is cached is not computed, and a
    preempted one finds again those of its blocks that have not been handed out since.
    """

    mode: Mode = Mode.BOTH
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    max_model_len: int = 16_384
    kv_blocks: int | None = None
    block_tokens: int = BLOCK_TOKENS
    async_scheduling: bool = True
    prefix_caching: bool = True

    @classmethod
    def from_profile(cls, profile: Profile, mode: Mode) -> EngineConfig:
        """An engine of the TP group that a profile describes."""
        return cls(
            mode=mode,
            max_num_seqs=profile.max_num_seqs,
            max_num_batched_tokens=profile.prefill_chunk_tokens,
            max_model_len=profile.max_model_len,
            kv_blocks=profile.kv_capacity_tokens // BLOCK_TOKENS,
        )

    def check(self, costs: StepCosts) -> None:
        """Raises EngineError with all that is wrong, also where the costs do not reach as far."""
        if problems := list(self._problems(costs)):
            raise EngineError(*problems)

    def _problems(self, costs: StepCosts) -> Iterator[str]:
        limits = {
            "max_num_seqs": costs.max_seqs,
            "max_num_batched_tokens": costs.max_tokens,
            "max_model_len": costs.max_context,
        }
        for name, limit in limits.items():
            value = getattr(self, name)
            if not 1 <= value <= limit:
                yield f"{name} = {value}: expected 1 to {limit}, which the profile covers"
        if self.max_num_batched_tokens < self.max_num_seqs:
            yield f"max_num_batched_tokens = {self.max_num_batched_tokens}: expected max_num_seqs or more"
        if self.block_tokens < 1:
            yield f"block_tokens = {self.block_tokens}: expected 1 or more"
        if self.kv_blocks is not None and self.kv_blocks < 1:
            yield f"kv_blocks = {self.kv_blocks}: expected 1 or more, or none for no limit"
