"""Size: how many TP groups per role meet the SLO for a demand.

Rules:
1. Prefill is a queue of prompts: the fewest groups at which the SLO's share of prompts waits no longer than the
   TTFT target leaves after its own prefill, its KV transfer and decode's first step.
2. Decode is a pool of slots: the largest batch per group whose ITL meets the target and whose KV fits.
3. An SLO that no size can meet is named and never drives growth: then throughput alone is sized.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from autoscaler.model import Demand, Forecast, Signals
from autoscaler.settings import Settings
from perfmodel import queueing
from perfmodel.profile import Profile
from policies.model import Code, Pair, Reason, Role, Stage

# Prompt lengths of served traffic vary about as much as an exponential; the squared coefficient of variation.
PROMPT_CV2 = 1.0
# Share of a group's time that may be planned when the SLO itself gives no limit.
BUSY_MAX = 0.85
# Share of the ITL target that the modelled step may take: the rest is for what a client sees on top.
ITL_MARGIN = 0.9
SIZES_MAX = 4096


@dataclass(frozen=True, slots=True)
class Sized:
    """The groups for the high quantile, the floor for the median, and why."""

    groups: Pair
    floor: Pair
    why: tuple[Reason, ...]


def size(signals: Signals, forecast: Forecast, settings: Settings, profile: Profile) -> Sized:
    """Groups per role for the forecast."""
    demand = signals.demand
    if not isinstance(demand, Demand) or demand.requests_per_s == 0:
        why = tuple(_no_work(role) for role in (Role.PREFILL, Role.DECODE))
        return Sized(Pair(0, 0), Pair(0, 0), why)
    prefill, prefill_floor, prefill_why = _prefill(demand, forecast, settings, profile)
    decode, decode_floor, decode_why = _decode(demand, forecast, settings, profile)
    return Sized(Pair(prefill, decode), Pair(prefill_floor, decode_floor), (*prefill_why, *decode_why))


def _no_work(role: Role) -> Reason:
    code = Code.SIZED_FOR_TTFT if role is Role.PREFILL else Code.SIZED_FOR_ITL
    return Reason(Stage.SIZE, code, role, {"groups": 0, "tokens_per_s": 0.0})


def _prefill(
    demand: Demand, forecast: Forecast, settings: Settings, profile: Profile
) -> tuple[int, int, tuple[Reason, ...]]:
    slo = settings.spec.slo.ttft
    ask = forecast.prefill
    tokens = min(max(1.0, demand.prompt_tokens_mean), profile.prefill.xs[-1])
    service_ms = profile.prefill_ms(tokens)
    first_step_ms = profile.decode_ms(1, min(tokens, profile.decode.ys[-1]))
    alone_ms = service_ms + profile.transfer_ms(tokens) + first_step_ms
    slack_s = (slo.target_ms - alone_ms) / 1000
    late_max = 1 - slo.percentile / 100
    why: list[Reason] = []
    if slack_s <= 0:
        detail = {"target_ms": slo.target_ms, "reachable_ms": alone_ms, "prompt_tokens": tokens}
        why.append(Reason(Stage.SIZE, Code.SLO_UNREACHABLE, Role.PREFILL, detail))

    def groups(tokens_per_s: float) -> int:
        load = tokens_per_s / tokens * service_ms / 1000
        if slack_s <= 0:
            return max(1, math.ceil(load / BUSY_MAX))
        return queueing.queue_servers(load, service_ms / 1000, PROMPT_CV2, slack_s, late_max, SIZES_MAX)

    needed, floor = groups(ask.tokens_per_s_high), groups(ask.tokens_per_s_q50)
    detail = {"groups": needed, "tokens_per_s": ask.tokens_per_s_high, "prompt_ms": service_ms, "slack_s": slack_s}
    why.append(Reason(Stage.SIZE, Code.SIZED_FOR_TTFT, Role.PREFILL, detail))
    return needed, floor, tuple(why)


def _decode(
    demand: Demand, forecast: Forecast, settings: Settings, profile: Profile
) -> tuple[int, int, tuple[Reason, ...]]:
    slo = settings.spec.slo.itl
    ask = forecast.decode
    context = min(demand.prompt_tokens_mean + demand.output_tokens_mean / 2, profile.decode.ys[-1])
    slots = profile.max_decode_batch(context, slo.target_ms * ITL_MARGIN)
    why: list[Reason] = []
    if slots == 0:
        reachable_ms = profile.decode_ms(1, context)
        detail = {"target_ms": slo.target_ms, "reachable_ms": reachable_ms, "context_tokens": context}
        why.append(Reason(Stage.SIZE, Code.SLO_UNREACHABLE, Role.DECODE, detail))
        slots = 1
    limit = settings.spec.decode.max_num_seqs
    slots = min(slots, limit) if limit else slots
    itl_ms = profile.decode_ms(slots, context)

    def groups(tokens_per_s: float) -> int:
        return queueing.slot_servers(tokens_per_s * itl_ms / 1000, slots, slo.percentile / 100)

    needed, floor = groups(ask.tokens_per_s_high), groups(ask.tokens_per_s_q50)
    detail = {"groups": needed, "tokens_per_s": ask.tokens_per_s_high, "slots": slots, "itl_ms": itl_ms}
    why.append(Reason(Stage.SIZE, Code.SIZED_FOR_ITL, Role.DECODE, detail))
    return needed, floor, tuple(why)
