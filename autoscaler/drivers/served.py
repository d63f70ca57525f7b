"""What the API server lacks of what the controller counts on: the PodGroup API, and fields of our own CRD.

Rules:
1. The CRD is compared by the OpenAPI document that the server publishes: whoever is authenticated may read it, so
   it takes no right, and it is what the server prunes by. Where nothing is published nothing is claimed.
2. What is lacking is looked for again soon, what is there as seldom as a watch is renewed: a document that follows
   its CRD some seconds late is seen by then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from autoscaler.crd import STATUS, lacking
from kubeapi import kinds
from kubeapi.client import KubeClient
from kubeapi.discovery import published_schema, why_not_served
from kubeapi.errors import ApiError
from policies.model import Code, Reason, Stage

log = logging.getLogger("roleratio.cluster")

SOON_S, SELDOM_S = 5.0, 240.0
NAMED = 5
REMEDY = "kubectl apply --server-side -k manifests/overlays/dry-run (or active)"


class Served:
    """`podgroups_absent` says whether the server has no PodGroups, or raises the ApiError that keeps it from knowing;
    `has_crd`, whether our objects are followed.
    """

    def __init__(self, client: KubeClient, podgroups_absent: Callable[[], bool], has_crd: bool) -> None:
        self._client = client
        self._podgroups_absent = podgroups_absent
        self._has_crd = has_crd
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
            await asyncio.sleep(SOON_S if self.reasons else SELDOM_S)
            await self.look()

    async def look(self) -> None:
        """Look once; a server that does not answer is as it was. A line in the log tells what is new."""
        found = []
        try:
            absent = self._podgroups_absent()
            document = await published_schema(self._client, kinds.RRA) if self._has_crd else None
        except ApiError:
            return
        if self._has_crd:
            self.crd_lacks = lacking(document) if document else ()
            if self.crd_lacks:
                found.append(_reason(Code.CRD_OUTDATED, self.problem()))
        if absent:
            why = f"{await why_not_served(self._client, kinds.PODGROUP)}: minimums are left alone"
            found.append(_reason(Code.PODGROUPS_NOT_SERVED, why))
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
