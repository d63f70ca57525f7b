"""What lasts and what comes back: the pause of a failing loop, and a status of which the server keeps only a part."""

from __future__ import annotations

from autoscaler.adapters.rra import SETTLE_S
from autoscaler.crd import STATUS, crd, lacking
from autoscaler.drivers.another import Another
from autoscaler.drivers.trouble import STEADY_S, Pause
from kubeapi import names
from kubeapi.client import Object


def test_a_loop_that_keeps_failing_waits_longer_each_time() -> None:
    now_s = [100.0]
    pause = Pause(lambda: now_s[0])
    waits_s = []
    for _ in range(9):
        waits_s.append(pause.begin())
        assert not pause.is_over()
        now_s[0] += waits_s[-1]
        assert pause.is_over()
    longest_s = [min(60.0, 2.0**n) for n in range(9)]
    assert all(most / 2 <= wait <= most for wait, most in zip(waits_s, longest_s, strict=True))
    now_s[0] += STEADY_S + 1
    assert pause.begin() <= 1.0


def rra(status: Object | None, writer: str = names.MANAGER_CONTROLLER) -> Object:
    entry = {"manager": writer, "subresource": "status", "time": "2026-11-25T06:00:00Z"}
    return {"metadata": {"managedFields": [entry]}, "status": status}


def test_what_the_server_drops_of_our_status_is_nobody_elses() -> None:
    another = Another()
    assert another.look(rra(None), 0.0) == ()
    sent, stored = {"mode": "Active", "ratio": "1:1"}, {"mode": "Active"}
    another.wrote(sent, stored)
    assert another.look(rra(stored), 1.0) == ()
    assert another.told(rra(stored)) == sent, "so that the same is not written again"
    assert another.told(rra({"mode": "Off"})) == {"mode": "Off"}


def test_a_status_in_our_name_that_we_did_not_write_is_another_controllers() -> None:
    another = Another()
    another.look(rra(None), 0.0)
    another.wrote({"mode": "Active"}, {"mode": "Active"})
    another.look(rra({"mode": "Active"}), 1.0)
    (reason,) = another.look(rra({"mode": "DryRun"}), 2.0)
    assert "another roleratio-controller" in str(reason)
    assert another.look(rra({"mode": "DryRun"}), 2.0 + 6 * SETTLE_S) == ()


def test_a_status_whose_answer_got_lost_may_be_ours() -> None:
    another = Another()
    another.look(rra(None), 0.0)
    another.lost({"mode": "Active"})
    assert another.look(rra({"mode": "Active"}), 1.0) == ()


def test_what_a_crd_of_another_version_lacks() -> None:
    ours = crd()
    assert lacking(ours) == ()
    (version,) = ours["spec"]["versions"]
    properties = version["schema"]["openAPIV3Schema"]["properties"]
    del properties["spec"]["properties"]["ratioBand"]
    del properties["spec"]["properties"]["decode"]["properties"]["maxNumSeqs"]
    properties["spec"]["properties"]["mode"]["enum"].remove("Off")
    del version["subresources"]["status"]
    assert set(lacking(ours)) == {STATUS, "spec.ratioBand", "spec.decode.maxNumSeqs", "spec.mode=Off"}
    version["served"] = False
    assert lacking(ours) == (), "objects of a version that is not served cannot be read at all"
