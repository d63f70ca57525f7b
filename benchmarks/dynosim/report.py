"""One report of Dynamo's simulator (`on_tick`), read strictly: a missing field and an unknown one are errors.

Facts of the report (ai-dynamo 1.5.1):
1. `traffic` is of the interval since the last report. `num_req` counts arrivals; the averages are of requests that
   ended in it, `shape_count` of them, and 0 when there are none. `accept_length_forward_count` counts decode's passes
   per sequence, the first token's included: times `avg_accept_length`, the tokens that were generated.
2. A snapshot is a worker's last pass: what was in it, and what waited behind it; of an idle worker all is 0. A worker
   that has just started has none until its first pass has ended.
3. `non_draining` groups are those asked for: active and starting. A group that drains is counted apart.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from autoscaler.errors import UserError
from autoscaler.settings import problem_line
from policies.model import Role

MOST = 10**12
"""Requests or tokens: no interval has more, and sums and squares of so many are still numbers."""


class Strict(BaseModel):
    """A part of a report."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Pass(Strict):
    """The last pass of one worker."""

    worker_id: int = Field(ge=0)
    dp_rank: int = Field(ge=0)
    wall_time: float = Field(ge=0)
    num_prefill_requests: int = Field(ge=0, le=MOST)
    sum_prefill_tokens: int = Field(ge=0, le=MOST)
    var_prefill_length: float
    sum_prefill_kv_tokens: int = Field(ge=0, le=MOST)
    num_decode_requests: int = Field(ge=0, le=MOST)
    sum_decode_kv_tokens: int = Field(ge=0, le=MOST)
    var_decode_kv_tokens: float
    num_queued_prefill: int = Field(ge=0, le=MOST)
    sum_queued_prefill_tokens: int = Field(ge=0, le=MOST)
    var_queued_prefill_length: float
    num_queued_decode: int = Field(ge=0, le=MOST)
    sum_queued_decode_kv_tokens: int = Field(ge=0, le=MOST)
    var_queued_decode_kv_tokens: float


class Traffic(Strict):
    """What came and what ended in the interval."""

    duration_s: float = Field(ge=0)
    num_req: int = Field(ge=0, le=MOST)
    avg_isl: float = Field(ge=0, le=MOST)
    avg_osl: float = Field(ge=0, le=MOST)
    avg_ttft_ms: float = Field(ge=0)
    avg_itl_ms: float = Field(ge=0)
    shape_count: int = Field(ge=0, le=MOST)
    ttft_count: int = Field(ge=0)
    itl_count: int = Field(ge=0)
    avg_accept_length: float | None = Field(ge=0, le=MOST)
    avg_kv_hit_rate: float | None = Field(ge=0)
    hit_rate_count: int = Field(ge=0)
    accept_length_forward_count: int = Field(ge=0, le=MOST)

    @property
    def generated(self) -> float:
        """Tokens that decode gave in the interval."""
        return self.accept_length_forward_count * (self.avg_accept_length or 0.0)


class Report(Strict):
    """The whole report."""

    tick_ordinal: int = Field(ge=0)
    now_ms: float = Field(ge=0)
    prefill_fpm_snapshots: tuple[Pass, ...] = Field(strict=False)
    decode_fpm_snapshots: tuple[Pass, ...] = Field(strict=False)
    active_prefill_count: int = Field(ge=0)
    active_decode_count: int = Field(ge=0)
    active_prefill_ids: tuple[int, ...] = Field(strict=False)
    active_decode_ids: tuple[int, ...] = Field(strict=False)
    starting_prefill_count: int = Field(ge=0)
    starting_decode_count: int = Field(ge=0)
    starting_prefill_ids: tuple[int, ...] = Field(strict=False)
    starting_decode_ids: tuple[int, ...] = Field(strict=False)
    draining_prefill_count: int = Field(ge=0)
    draining_decode_count: int = Field(ge=0)
    draining_prefill_ids: tuple[int, ...] = Field(strict=False)
    draining_decode_ids: tuple[int, ...] = Field(strict=False)
    non_draining_prefill_count: int = Field(ge=0)
    non_draining_decode_count: int = Field(ge=0)
    total_prefill_count: int = Field(ge=0)
    total_decode_count: int = Field(ge=0)
    traffic: Traffic

    def of(self, role: Role, field: str) -> Any:
        """A field whose name holds `{}` for the role, such as `active_{}_ids`."""
        return getattr(self, field.format(role.value))


def parse_report(line: str, number: int) -> Report:
    """One line of standard input. Raises UserError with one line that says all that is wrong."""
    source = f"report {number}"
    try:
        return Report.model_validate_json(line)
    except ValidationError as error:
        problems = [
            f"{source}: not JSON: {problem['ctx']['error']}; expected one report of on_tick a line"
            if problem["type"] == "json_invalid"
            else problem_line(source, problem)
            for problem in error.errors()
        ]
        raise UserError("; ".join(problems)) from error
