"""One request as one engine sees it, and what an engine says has happened."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple


@dataclass(slots=True, eq=False)
class Job:
    """What is asked, and the stamps that the engine sets (vLLM's; None until then). One visit of one engine.

    `queued_s` is when the engine sees the request, which is between two steps. A prefill engine gives one token,
    whatever `output_tokens` says; what a decode engine gives includes the first one, whose step computes the prompt's
    last token. Tokens that the prefix cache holds (`cached_tokens`) are not computed, but take KV room. `tag` is the
    caller's.
    """

    prompt_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    tag: Any = None

    queued_s: float | None = None
    scheduled_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None
    preemptions: int = 0

    # The engine's own account: tokens to have KV before decoding, those scheduled so far, the decode tick of the end.
    target: int = field(default=0, repr=False)
    planned: int = field(default=0, repr=False)
    finish_tick: int = field(default=-1, repr=False)
    phase: int = field(default=0, repr=False)
    generated: int = field(default=0, repr=False)
    freed_mark: float | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.prompt_tokens < 1 or self.output_tokens < 1 or self.cached_tokens < 0:
            asked = f"{self.prompt_tokens} + {self.output_tokens} tokens, {self.cached_tokens} cached"
            raise ValueError(f"job of {asked}: expected 1 or more in prompt and output, 0 or more cached")

    @property
    def tokens(self) -> int:
        """The length of the whole sequence."""
        return self.prompt_tokens + self.output_tokens


class Happened(Enum):
    """What an engine tells the world around it."""

    ROOM = "room"
    """Decode: KV room is reserved, the transfer may begin (answer with `kv_arrived`)."""
    PREFILLED = "prefilled"
    """Prefill: the prompt is computed, its KV is held (answer with `release`)."""
    FIRST_TOKEN = "first_token"
    FINISHED = "finished"
    REJECTED = "rejected"
    """The request can never fit this engine."""


class Event(NamedTuple):
    """Something that happened to a job."""

    at_s: float
    what: Happened
    job: Job
