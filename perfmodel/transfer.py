"""KV transfer as the third stage: load of the links, time of a transfer under it, and which stage is narrowest; pure.

Model: each prefill group sends over one link, one transfer after the other; to a link its prompts come as Poisson
arrivals, which is to the safe side: prefill spaces them. Rules:
1. `links` counts what carries the transfers: the prefill groups, or those of the decode side where it has fewer.
2. A stage's load is demand over capacity. The narrowest stage is the one with the highest; groups help only there.
   Links belong to groups: a transfer that is narrowest needs more prefill groups, or a faster network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from perfmodel.decode import DecodeWork
from perfmodel.lengths import Lengths
from perfmodel.prefill import PrefillWork, prefill_wait
from perfmodel.profile import Profile
from perfmodel.queueing import Services, wait

StageName = Literal["prefill", "transfer", "decode"]


@dataclass(frozen=True, slots=True)
class TransferLoad:
    """Transfers at some demand: the share of time that a link is busy, and means over prompts in milliseconds."""

    load: float
    idle_ms: float
    """On an idle link."""
    wait_ms: float
    """For the link; infinite from saturation on."""

    @property
    def loaded_ms(self) -> float:
        """Under this load."""
        return self.idle_ms + self.wait_ms


def transfer_load(profile: Profile, prompts: Lengths, requests_per_s: float, links: int) -> TransferLoad:
    """Transfers of these prompts over so many links (1 or more)."""
    services = Services.of(
        [
            (share, profile.transfer_ms(tokens) / 1e3)
            for share, tokens in zip(prompts.shares, prompts.tokens, strict=True)
        ]
    )
    waiting = wait(1, requests_per_s / links, services)
    return TransferLoad(link_load(profile, prompts, requests_per_s, links), services.mean_s * 1e3, waiting.mean_s * 1e3)


def link_load(profile: Profile, prompts: Lengths, requests_per_s: float, links: int) -> float:
    """The share of time that each of so many links (1 or more) is busy."""
    return requests_per_s / links * profile.transfer_ms(prompts.mean) / 1e3


def ttft_part(transfer: TransferLoad, work: PrefillWork, requests_per_s: float, prefill_groups: int) -> float:
    """The share of the mean TTFT that goes into the transfer, waiting included; NaN where both stages are saturated.

    `work` is without a transfer wait of its own.
    """
    alone_ms = 1e3 * sum(share * alone for share, alone in zip(work.shares, work.alone_s, strict=True))
    waiting_ms = 1e3 * prefill_wait(work, requests_per_s, prefill_groups).mean_s
    if transfer.wait_ms == float("inf") and waiting_ms < float("inf"):
        return 1.0
    return transfer.loaded_ms / (waiting_ms + alone_ms + transfer.wait_ms)


@dataclass(frozen=True, slots=True)
class StageLoads:
    """Demand over capacity of each stage."""

    prefill: float
    transfer: float
    decode: float

    @property
    def narrowest(self) -> StageName:
        """The stage with the highest load; of equal ones the first that a request meets."""
        names: tuple[StageName, ...] = ("prefill", "transfer", "decode")
        return max(names, key=lambda name: float(getattr(self, name)))


def stage_loads(
    prefill: PrefillWork, transfer: float, decode: DecodeWork, requests_per_s: float, groups: tuple[int, int]
) -> StageLoads:
    """The loads of (prefill, decode) groups beside `transfer`, that of their links; infinite for a role without groups,
    or that can serve nothing.
    """
    prefill_groups, decode_groups = groups
    released = decode.requests_per_s * decode_groups
    return StageLoads(
        requests_per_s * prefill.mean_s / prefill_groups if prefill_groups else float("inf"),
        transfer,
        requests_per_s / released if released else float("inf"),
    )
