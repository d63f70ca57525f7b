"""What the API server lacks of what the controller counts on: the PodGroup API, and fields of our own CRD.

Rules:
1. The CRD is the one that a watch shows; where it cannot be seen nothing is claimed.
2. Looking costs no request, but for what a server has instead of an API that has just turned out to be absent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from autoscaler.crd import STATUS, lacking
from kubeapi import kinds
from kubeapi.client import KubeClient
from kubeapi.discovery import why_not_served
from kubeapi.errors import ApiError
from policies.model import Code, Reason, Stage

log = logging.getLogger("roleratio.cluster")

LOOK_S = 1.0
NAMED = 5
REMEDY = "kubectl apply --server-side -k manifests/overlays/dry-run (or active)"


class Served:
    """`podgroups_absent` says whether the server has no PodGroups, or raises the ApiError that keeps it from knowing;
    `crd` gives our CRD as it is in the cluster, where that can be seen.
    """

    def __init__(
        self, client: KubeClient, podgroups_absent: Callable[[], bool], crd: Callable[[], Mapping[str, Any] | None]
    ) -> None:
        self._client = client
        self._podgroups_absent = podgroups_absent
        self._crd = crd
        self._instead = ""
        self.crd_lacks: tuple[str, ...] = ()
        self.reasons: tuple[Reason, ...] = ()

    @property
    def can_be_told(self) -> bool:
        """Whether an rra has a status that can be written."""
        return STATUS not in self.crd_lacks

    def problem(self) -> str:
        """What is wrong with the CRD, and what to do; empty when nothing is."""
        if not self.crd_lacks:
            return ""
        lacks = ", ".join(self.crd_lacks[:NAMED])
        more = f" and {len(self.crd_lacks) - NAMED} more" if len(self.crd_lacks) > NAMED else ""
        return f"the CRD {kinds.RRA.title} is of another version: it lacks {lacks}{more}; apply ours: {REMEDY}"

    async def watch(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Look once; a server that does not answer is as it was. A line in the log tells what is new."""
        found = []
        try:
            absent = self._podgroups_absent()
        except ApiError:
            return
        crd = self._crd()
        self.crd_lacks = lacking(crd) if crd else ()
        if self.crd_lacks:
            found.append(_reason(Code.CRD_OUTDATED, self.problem()))
        if absent:
            self._instead = self._instead or await why_not_served(self._client, kinds.PODGROUP)
            found.append(_reason(Code.PODGROUPS_NOT_SERVED, f"{self._instead}: minimums are left alone"))
        else:
            self._instead = ""
        for reason in found:
            if reason not in self.reasons:
                log.warning("%s", reason.detail["why"])
        for code in {reason.code for reason in self.reasons} - {reason.code for reason in found}:
            log.info("no longer %s", code)
        self.reasons = tuple(found)


def _reason(code: Code, why: str) -> Reason:
    return Reason(Stage.OBSERVE, code, None, {"why": why})


async def why_no_crd(client: KubeClient) -> str:
    """One line for a server that does not know our kind."""
    return f"{await why_not_served(client, kinds.RRA)}; apply the CRD: {REMEDY}"
