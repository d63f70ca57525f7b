"""Size: how many TP groups per role meet the SLO for a demand.

Rules:
1. Prefill is a queue of prompts: the fewest groups at which the SLO's share of prompts waits no longer than the
   TTFT target leaves after its own prefill, its KV transfer and decode's first step.
2. Decode is a pool of slots: the largest batch per group whose ITL meets the target and whose KV fits.
3. An SLO that no size can meet is named and never drives growth: then throughput alone is sized.
4. The profile speaks of one engine; a group has as many as its pages show.
5. A role whose demand is not known is not sized; the other one is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from autoscaler.model import Forecast, RoleForecast, RoleSignals, Signals
from autoscaler.settings import Settings
from perfmodel import queueing
from perfmodel.profile import Profile
from policies.model import ROLES, Code, Detail, Missing, Reason, Role, Stage

# Prompt lengths of served traffic vary about as much as an exponential; the squared coefficient of variation.
PROMPT_CV2 = 1.0
# Share of a group's time that may be planned when the SLO itself gives no limit.
BUSY_MAX = 0.85
# Share of the ITL target that the modelled step may take: the rest is for what a client sees on top.
ITL_MARGIN = 0.9
SIZES_MAX = 4096


@dataclass(frozen=True, slots=True)
class RoleSize:
    """The groups for the high quantile, and the floor for the median."""

    groups: int
    floor: int


@dataclass(frozen=True, slots=True)
class Sized:
    """What each role needs, or why that is not known; and why so many."""

    prefill: RoleSize | Missing
    decode: RoleSize | Missing
    why: tuple[Reason, ...]

    def __getitem__(self, role: Role) -> RoleSize | Missing:
        return self.prefill if role is Role.PREFILL else self.decode


def size(signals: Signals, forecast: Forecast, settings: Settings, profile: Profile) -> Sized:
    """Groups per role for the forecast."""
    why: list[Reason] = []
    sizes: dict[Role, RoleSize | Missing] = {}
    for role in ROLES:
        ask = forecast[role]
        if isinstance(ask, Missing):
            sizes[role] = ask
        elif signals.demand.requests_per_s == 0:
            sizes[role] = RoleSize(0, 0)
            why.append(_no_work(role))
        else:
            sizes[role] = (_prefill if role is Role.PREFILL else _decode)(signals, ask, settings, profile, why)
    return Sized(sizes[Role.PREFILL], sizes[Role.DECODE], tuple(why))


def _no_work(role: Role) -> Reason:
    code = Code.SIZED_FOR_TTFT if role is Role.PREFILL else Code.SIZED_FOR_ITL
    return Reason(Stage.SIZE, code, role, {"groups": 0, "tokens_per_s": 0.0})


def _prefill(signals: Signals, ask: RoleForecast, settings: Settings, profile: Profile, why: list[Reason]) -> RoleSize:
    slo = settings.spec.slo.ttft
    tokens = min(max(1.0, ask.tokens_mean), profile.prefill.xs[-1])
    service_ms = profile.prefill_ms(tokens)
    first_step_ms = profile.decode_ms(1, min(tokens, profile.decode.ys[-1]))
    alone_ms = service_ms + profile.transfer_ms(tokens) + first_step_ms
    slack_s = (slo.target_ms - alone_ms) / 1000
    late_max = 1 - slo.percentile / 100
    if slack_s <= 0:
        detail = {"target_ms": slo.target_ms, "reachable_ms": alone_ms, "prompt_tokens": tokens}
        why.append(Reason(Stage.SIZE, Code.SLO_UNREACHABLE, Role.PREFILL, detail))

    def groups(tokens_per_s: float) -> int:
        load = tokens_per_s / tokens * service_ms / 1000
        if slack_s <= 0:
            return _groups(max(1, math.ceil(load / BUSY_MAX)), signals.prefill)
        engines = queueing.queue_servers(load, service_ms / 1000, PROMPT_CV2, slack_s, late_max, SIZES_MAX)
        return _groups(engines, signals.prefill)

    needed, floor = groups(ask.tokens_per_s_high), groups(ask.tokens_per_s_q50)
    detail = {"groups": needed, "tokens_per_s": ask.tokens_per_s_high, "prompt_ms": service_ms, "slack_s": slack_s}
    why.append(Reason(Stage.SIZE, Code.SIZED_FOR_TTFT, Role.PREFILL, {**detail, **_width(signals.prefill)}))
    return RoleSize(needed, floor)


def _groups(engines: int, signals: RoleSignals) -> int:
    """Groups that have so many engines."""
    return math.ceil(engines / signals.engines_per_group - 1e-9)


def _width(signals: RoleSignals) -> Detail:
    """How many engines a group has, where that is not one."""
    return {"engines_per_group": signals.engines_per_group} if signals.engines_per_group != 1 else {}


def _decode(
    signals: Signals, ask: RoleForecast, settings: Settings, profile: Profile, why: list[Reason]
) -> RoleSize | Missing:
    slo, prompt = settings.spec.slo.itl, signals.demand.prompt_tokens_mean
    if isinstance(prompt, Missing):
        return prompt
    context = min(prompt + ask.tokens_mean / 2, profile.decode.ys[-1])
    slots = profile.max_decode_batch(context, slo.target_ms * ITL_MARGIN)
    if slots == 0:
        reachable_ms = profile.decode_ms(1, context)
        detail = {"target_ms": slo.target_ms, "reachable_ms": reachable_ms, "context_tokens": context}
        why.append(Reason(Stage.SIZE, Code.SLO_UNREACHABLE, Role.DECODE, detail))
        slots = 1
    limit = settings.spec.decode.max_num_seqs
    slots = min(slots, limit) if limit else slots
    itl_ms = profile.decode_ms(slots, context)

    def groups(tokens_per_s: float) -> int:
        engines = queueing.slot_servers(tokens_per_s * itl_ms / 1000, slots, slo.percentile / 100)
        return _groups(engines, signals.decode)

    needed, floor = groups(ask.tokens_per_s_high), groups(ask.tokens_per_s_q50)
    detail = {"groups": needed, "tokens_per_s": ask.tokens_per_s_high, "slots": slots, "itl_ms": itl_ms}
    own = {**_width(signals.decode), **_utilisation(signals.decode, slots)}
    why.append(Reason(Stage.SIZE, Code.SIZED_FOR_ITL, Role.DECODE, {**detail, **own}))
    return RoleSize(needed, floor)


def _utilisation(signals: RoleSignals, slots: int) -> Detail:
    """The share of the slots that are taken: engines by engines, whatever pods and groups there are."""
    engines = signals.engines_per_group * signals.groups_read
    if isinstance(signals.running, Missing) or not engines:
        return {}
    return {"utilisation": signals.running / (engines * slots)}
