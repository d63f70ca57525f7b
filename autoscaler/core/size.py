"""Size: how many TP groups per role meet the SLO for a demand, and work off what has piled up.

Rules:
1. The fewest groups so that the predicted share of requests within the targets reaches the SLO's: TTFT with all
   waiting in it, ITL over tokens, KV in room (`perfmodel`). The demand is the forecast's tokens over their mean length.
2. What a router holds is worked off in `backlogDrainS` beside what arrives, by groups of the narrowest stage. What is
   bound to workers already, a new group cannot take; it is load that a smaller role would not get rid of.
3. An SLO that no size can meet is named with the closest that one can, and never drives growth.
4. The profile speaks of one engine; a group has as many as its pages show.
5. What a prefix cache keeps having is no work of prefill; a group that has yet to start has none of it.
6. A role whose demand is not known is not sized; the other one is. A length is remembered only while the history still
   has its traffic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from autoscaler.core.bottleneck import Narrowest, Queues, narrowest, queues
from autoscaler.core.work import Ask, Work, prompt_cv2, work_of
from autoscaler.model import (
    Forecast,
    Learned,
    Number,
    Observation,
    RoleFleet,
    RoleForecast,
    RoleSignals,
    Signals,
    State,
)
from autoscaler.settings import Settings
from perfmodel import decode, prefill
from perfmodel.profile import Profile
from perfmodel.slo import Reach, itl_reach, ttft_reach
from perfmodel.transfer import StageName
from policies.model import ROLES, Code, Detail, Missing, Reason, Role, Stage

# A link that is busy for less than this share of the time that its group is never makes anything wait.
LINK_MATTERS = 0.1
# Of a link's time: above it a transfer waits for longer than it takes. No matter where few prompts can meet the TTFT.
LINK_BUSY = 0.5


@dataclass(frozen=True, slots=True)
class RoleSize:
    """What one role needs, in TP groups; real numbers but for the first two.

    `groups` meets the SLO at the forecast's high quantile and drains the present backlog in time; `floor` meets it at
    the median. `load` is the work that arrives now, as groups kept wholly busy; `load_most` how much of it one group
    may take within the SLO at `floor` groups. `low` and `high` are the groups for the two quantiles, for the ratio.
    """

    groups: int
    floor: int
    load: float
    load_most: float
    low: float
    high: float


IDLE = RoleSize(0, 0, 0.0, 1.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Sized:
    """What each role needs, or why that is not known; and why so many. `bottleneck`: where that is known."""

    prefill: RoleSize | Missing
    decode: RoleSize | Missing
    why: tuple[Reason, ...]
    bottleneck: StageName | None = None

    def __getitem__(self, role: Role) -> RoleSize | Missing:
        return self.prefill if role is Role.PREFILL else self.decode


@dataclass(frozen=True, slots=True)
class _Case:
    """What both roles are sized from."""

    signals: Signals
    settings: Settings
    profile: Profile
    ask: Ask
    work: Work
    ready: dict[Role, int]
    waiting: Queues
    narrow: Narrowest | None

    def drained(self, stage: StageName) -> float:
        """Requests/s by which a stage must be faster than what arrives, for the sake of what a router holds."""
        if self.narrow is not None and self.narrow.stage != stage:
            return 0.0
        return self.waiting.unassigned / self.settings.spec.backlog_drain_s

    def prefill_of(self, groups: int) -> prefill.PrefillWork:
        """What prompts ask of so many groups, of which those that have yet to start have nothing in their caches."""
        warm = min(1.0, self.ready[Role.PREFILL] / max(1, groups))
        return work_of(self.profile, replace(self.ask, cached_share=self.ask.cached_share * warm)).prefill


@dataclass(frozen=True, slots=True)
class _Rates:
    """Requests/s: now, and of the forecast."""

    now: float
    median: float
    high: float


def size(
    state: State, seen: Observation, signals: Signals, forecast: Forecast, settings: Settings, profile: Profile
) -> Sized:
    """Groups per role for the forecast. Linear in the kept history, logarithmic in the groups."""
    lengths = {role: _length(role, state, signals, forecast) for role in ROLES}
    case = _case(state, seen, signals, settings, profile, lengths)
    why: list[Reason] = list(case.narrow.why) if case and case.narrow else []
    sizes = {role: _role(role, case, forecast[role], lengths, why) for role in ROLES}
    stage = case.narrow.stage if case and case.narrow else None
    return Sized(sizes[Role.PREFILL], sizes[Role.DECODE], tuple(why), stage)


def _length(role: Role, state: State, signals: Signals, forecast: Forecast) -> Number:
    """The mean length of a role's work; while nothing arrives but something is expected, the last that was seen."""
    ask = forecast[role]
    mean = signals.demand.tokens_mean(role)
    known = [mean] if isinstance(ask, Missing) else [ask.tokens_mean, mean]
    found = next((length for length in known if not isinstance(length, Missing) and length > 0), None)
    if found is not None or isinstance(ask, Missing) or isinstance(mean, Missing):
        return mean if found is None else found
    past = (demand.tokens_mean(role) for demand in reversed(state.demands))
    return next(
        (length for length in past if not isinstance(length, Missing) and length > 0), Missing("no request yet")
    )


def _case(
    state: State,
    seen: Observation,
    signals: Signals,
    settings: Settings,
    profile: Profile,
    lengths: dict[Role, Number],
) -> _Case | None:
    prompt, answer = lengths[Role.PREFILL], lengths[Role.DECODE]
    if isinstance(prompt, Missing) or prompt <= 0:
        return None
    spec = settings.spec
    learned = state.learned if state.learned.profile == profile.name else Learned()
    ask = Ask(
        prompt_tokens=prompt,
        prompt_cv2=prompt_cv2(state.totals),
        answer_tokens=None if isinstance(answer, Missing) or answer <= 0 else answer,
        itl_ms=spec.slo.itl.target_ms,
        itl_share=spec.slo.itl.percentile / 100,
        max_num_seqs=spec.decode.max_num_seqs,
        context=learned.context,
        cached_share=learned.cached_share,
    )
    work, waiting = work_of(profile, ask), queues(seen, signals, spec.metrics.stale_after_s)
    ready = {role: fleet.ready if isinstance(fleet := seen.fleet[role], RoleFleet) else 0 for role in ROLES}
    narrow = narrowest(signals, waiting, work, profile, settings, ready)
    return _Case(signals, settings, profile, ask, work, ready, waiting, narrow)


def _role(
    role: Role, case: _Case | None, ask: RoleForecast | Missing, lengths: dict[Role, Number], why: list[Reason]
) -> RoleSize | Missing:
    if isinstance(ask, Missing):
        return ask
    lacking = next((lengths[r] for r in (Role.PREFILL, role) if isinstance(lengths[r], Missing)), None)
    if case is None or lacking is not None or (role is Role.DECODE and case.work.decode is None):
        if ask.tokens_per_s_high > 0:
            return lacking if isinstance(lacking, Missing) else Missing("the length of requests is not known")
        code = Code.SIZED_FOR_TTFT if role is Role.PREFILL else Code.SIZED_FOR_ITL
        why.append(Reason(Stage.SIZE, code, role, {"groups": 0, "tokens_per_s": 0.0}))
        return IDLE
    length, rate = lengths[role], case.signals.demand.requests_per_s
    assert not isinstance(length, Missing)
    rates = _Rates(
        0.0 if isinstance(rate, Missing) else rate, ask.tokens_per_s_q50 / length, ask.tokens_per_s_high / length
    )
    return (_prefill if role is Role.PREFILL else _decode)(case, ask, rates, why)


def _prefill(case: _Case, ask: RoleForecast, rates: _Rates, why: list[Reason]) -> RoleSize:
    slo, work = case.settings.spec.slo.ttft, case.work.prefill
    target_s, share = slo.target_ms / 1e3, slo.percentile / 100
    prompts, profile, signals = case.work.prompts, case.profile, case.signals.prefill
    link_s = profile.transfer_ms(prompts.mean) / 1e3
    links_matter = link_s > LINK_MATTERS * work.mean_s
    link_busy = LINK_BUSY if links_matter and work.helped(target_s) else prefill.BUSY_MAX

    def groups(work: prefill.PrefillWork, rate: float) -> int:
        found = prefill.fewest_groups(work, rate, target_s, share)
        return _groups(max(found, math.ceil(rate * link_s / link_busy)) if links_matter else found, signals)

    reach = ttft_reach(work, slo.target_ms, share)
    why += _unreachable(Role.PREFILL, rates, reach, {"prompt_tokens": prompts.mean})
    high, floor = (groups(case.prefill_of(groups(work, rate)), rate) for rate in (rates.high, rates.median))
    draining = max(
        case.drained("prefill") and work.mean_s * (rates.now + case.drained("prefill")),
        case.drained("transfer") and link_s * (rates.now + case.drained("transfer")),
    )
    needed = max(high, _groups(draining, signals))
    alone = max(1, round(floor * signals.engines_per_group))
    most = prefill.most_requests_per_s(work, alone, target_s, share) * work.mean_s / alone
    most = min(most, link_busy / link_s * work.mean_s) if links_matter else most
    waiting = (case.waiting.unassigned + case.waiting.prefill) / case.settings.spec.backlog_drain_s
    found = _sized(needed, high, floor, rates, waiting, work.mean_s / signals.engines_per_group, most)
    detail: Detail = {
        "groups": needed,
        "tokens_per_s": ask.tokens_per_s_high,
        "prompt_ms": work.mean_s * 1e3,
        "cv2": prompts.cv2,
        **({"cached_share": case.ask.cached_share} if case.ask.cached_share else {}),
        "load": found.load,
        **({"for_backlog": needed - high} if needed > high else {}),
        **_width(signals),
    }
    why.append(Reason(Stage.SIZE, Code.SIZED_FOR_TTFT, Role.PREFILL, detail))
    return found


def _decode(case: _Case, ask: RoleForecast, rates: _Rates, why: list[Reason]) -> RoleSize:
    slo, signals, held = case.settings.spec.slo.itl, case.signals.decode, case.work.held
    assert case.work.decode is not None
    assert held is not None
    work = decode.served(case.work.decode)
    reach = itl_reach(case.profile, held, slo.target_ms, slo.percentile / 100)
    why += _unreachable(Role.DECODE, rates, reach, {"context_tokens": held.mean})
    high = _groups(decode.fewest_groups(work, rates.high), signals)
    floor = _groups(decode.fewest_groups(work, rates.median), signals)
    faster = case.drained("decode") if case.narrow else 0.0
    needed = max(high, _groups(faster and (rates.now + faster) / work.requests_per_s, signals))
    alone = max(1, round(floor * signals.engines_per_group))
    most = decode.most_requests_per_s(work, alone) / work.requests_per_s / alone
    waiting = case.waiting.decode / case.settings.spec.backlog_drain_s
    busy_s = 1 / work.requests_per_s / signals.engines_per_group
    found = _sized(needed, high, floor, rates, waiting, busy_s, most)
    detail: Detail = {
        "groups": needed,
        "tokens_per_s": ask.tokens_per_s_high,
        "slots": work.batch,
        "limit": work.limit,
        "itl_ms": work.itl_ms,
        "load": found.load,
        **({"for_backlog": needed - high} if needed > high else {}),
        **_width(signals),
        **_utilisation(signals, work.batch),
    }
    why.append(Reason(Stage.SIZE, Code.SIZED_FOR_ITL, Role.DECODE, detail))
    return found


def _sized(
    needed: int, high: int, floor: int, rates: _Rates, waiting_per_s: float, group_s: float, most: float
) -> RoleSize:
    """`group_s`: seconds of a whole group per request. Between whole sizes, groups are as loaded as the floor's."""
    return RoleSize(
        groups=needed,
        floor=floor,
        load=(rates.now + waiting_per_s) * group_s,
        load_most=most,
        low=min(float(floor), rates.median * group_s / most),
        high=min(float(high), rates.high * group_s / most),
    )


def _unreachable(role: Role, rates: _Rates, reach: Reach, of: Detail) -> list[Reason]:
    """Told of what arrives, not of what is only remembered or expected."""
    if reach.reachable or rates.now <= 0:
        return []
    never: Detail = {} if reach.never_share is None else {"missed_share": reach.never_share}
    detail: Detail = {"target_ms": reach.target_ms, "reachable_ms": reach.closest_ms, **of, **never}
    return [Reason(Stage.SIZE, Code.SLO_UNREACHABLE, role, detail)]


def _groups(engines: float, signals: RoleSignals) -> int:
    """Groups that have so many engines."""
    return math.ceil(engines / signals.engines_per_group - 1e-9)


def _width(signals: RoleSignals) -> Detail:
    """How many engines a group has, where that is not one."""
    return {"engines_per_group": signals.engines_per_group} if signals.engines_per_group != 1 else {}


def _utilisation(signals: RoleSignals, slots: int) -> Detail:
    """The share of the slots that are taken: engines by engines, whatever pods and groups there are."""
    engines = signals.engines_per_group * signals.groups_read
    if isinstance(signals.running, Missing) or not engines:
        return {}
    return {"utilisation": signals.running / (engines * slots)}
