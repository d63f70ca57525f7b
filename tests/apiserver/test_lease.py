"""Leader election on a real API server, whose Lease is validated, versioned and defaulted as in a cluster."""

from __future__ import annotations

import asyncio

from kubeapi.client import KubeClient
from kubeapi.kinds import LEASE
from kubeapi.lease import Lease

FAST = {"duration_s": 2.0, "renew_s": 1.3, "retry_s": 0.2}
WAIT_S = 20.0


async def test_one_leads_renews_gives_back_and_the_next_takes_over(admin: KubeClient, namespace: str) -> None:
    async with asyncio.timeout(WAIT_S):
        async with Lease(admin, namespace, "elected", "a", **FAST) as first:
            await first.wait_leader()
            async with Lease(admin, namespace, "elected", "b", **FAST) as second:
                await asyncio.sleep(2.5)
                assert (first.is_leader, second.is_leader, second.holder) == (True, False, "a")
                spec = (await admin.get(LEASE, "elected", namespace))["spec"]
                assert (spec["holderIdentity"], spec["leaseDurationSeconds"]) == ("a", 2)
                assert spec["renewTime"] > spec["acquireTime"]
        given_back = (await admin.get(LEASE, "elected", namespace))["spec"]
        assert "holderIdentity" not in given_back
        async with Lease(admin, namespace, "elected", "c", **FAST) as third:
            await third.wait_leader()
            assert (await admin.get(LEASE, "elected", namespace))["spec"]["leaseTransitions"] == 1


async def test_a_dead_holder_is_succeeded_after_its_own_duration(admin: KubeClient, namespace: str) -> None:
    """The holder's clock is years ahead, which nobody looks at."""
    spec = {"holderIdentity": "dead", "leaseDurationSeconds": 1, "renewTime": "2999-01-01T00:00:00.000000Z"}
    await admin.create(LEASE, {"metadata": {"name": "elected"}, "spec": spec}, namespace)
    async with asyncio.timeout(WAIT_S), Lease(admin, namespace, "elected", "a", **FAST) as lease:
        await lease.wait_leader()
        assert (await admin.get(LEASE, "elected", namespace))["spec"]["holderIdentity"] == "a"


async def test_a_namespace_that_is_not_there_is_said(admin: KubeClient) -> None:
    async with Lease(admin, "no-such-namespace", "elected", "a", **FAST) as lease, asyncio.timeout(WAIT_S):
        while lease.error is None:
            await asyncio.sleep(0.05)
        assert "no-such-namespace" in str(lease.error)
        assert not lease.is_leader
