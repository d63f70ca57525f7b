"""A decision as a file: read back it is the same, decided again it says the same, and explained it is a tree."""

from __future__ import annotations

import asyncio
import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gangscheduler.explain import NoSuchGang, explain
from gangscheduler.model import Binding, Snapshot, Verdicts
from gangscheduler.place import place
from gangscheduler.record import VERSION, BadRecord, from_json, to_json
from gangscheduler.recorder import KEPT, Recorder, read, write
from kubeapi import names
from roleratio.cli import main
from tests.gangscheduler.builders import node, pod, podgroup, see, tp_group
from tests.gangscheduler.test_gang_layout import composite, leaf


def decision() -> tuple[Snapshot, Verdicts]:
    """One TP group that fits, one that does not; a taint, an affinity, a pod alone."""
    zones = [{"matchExpressions": [{"key": "z", "operator": "NotIn", "values": ["a", "b"]}]}]
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": zones}}}
    pods = [
        *tp_group("decode", 0, [8, 8]),
        *tp_group("decode", 1, [8, 8]),
        pod("web", spec={"affinity": affinity, "tolerations": [{"operator": "Exists"}], "nodeSelector": {"disk": "x"}}),
    ]
    taints = [{"key": "k", "value": "v", "effect": "NoSchedule"}]
    nodes = [node("n0", place="a/b/c"), node("n1"), node("n2", taints=taints, labels={"disk": "x"})]
    snapshot = see(nodes, pods, [podgroup("decode", 2, service="s", role="decode"), composite("s", 0)])
    return snapshot, place(snapshot)


def test_a_decision_read_back_is_the_same() -> None:
    snapshot, verdicts = decision()
    assert from_json(json.loads(json.dumps(to_json(snapshot, verdicts)))) == (snapshot, verdicts)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ([], "version=None: expected 1"),
        ({"version": 7}, "version=7: expected 1"),
        ({"version": VERSION, "snapshot": {}}, "not a decision"),
        ({"version": VERSION, "snapshot": {"unknown": 1}, "verdicts": {}}, "not a decision"),
        ({"version": VERSION, "snapshot": {"now_s": True}, "verdicts": {}}, "not a decision"),
    ],
)
def test_what_is_no_decision_is_said_in_one_line(raw: Any, said: str) -> None:
    with pytest.raises(BadRecord, match=r"\A[^\n]*\Z") as caught:
        from_json(raw)
    assert said in str(caught.value)


def test_replay_says_no_difference_or_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    snapshot, verdicts = decision()
    path = write(tmp_path, snapshot, verdicts)
    assert main(["scheduler", "replay", str(path)]) == 0
    assert "3 nodes, 5 pods, 2 groups: 3 bindings, no difference" in capsys.readouterr().out
    moved = replace(verdicts, bindings=(Binding("default/x", "uid-x", "n9"), *verdicts.bindings))
    plain = tmp_path / "plain.json"
    plain.write_text(json.dumps(to_json(snapshot, moved)))
    assert main(["scheduler", "replay", str(plain)]) == 1
    assert "differs: bindings: recorded Binding(pod='default/x'" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", gzip.compress(b"{}")[:-9], b"[1]"], ids=range(4))
def test_a_file_that_is_no_decision_is_the_users_to_change(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    assert main(["scheduler", "replay", str(path)]) == 2
    assert capsys.readouterr().err.startswith(f"roleratio scheduler: {path}: ")
    assert main(["scheduler", "replay", str(tmp_path / "none")]) == 2


def test_only_the_newest_files_stay(tmp_path: Path) -> None:
    snapshot, verdicts = decision()
    small = replace(snapshot, nodes=(), pods=(), groups=())
    for index in range(KEPT + 3):
        write(tmp_path, replace(small, now_s=1000.0 + index), verdicts)
    found = sorted(path.name for path in tmp_path.iterdir())
    assert len(found) == KEPT
    assert read(tmp_path / found[0])[0].now_s == 1003.0


async def test_the_recorder_keeps_what_says_something_new(tmp_path: Path) -> None:
    snapshot, verdicts = decision()
    quiet = replace(verdicts, bindings=())
    recorder = Recorder(tmp_path)
    task = asyncio.create_task(recorder.run())
    for now_s, said in ((1.0, quiet), (2.0, quiet), (3.0, verdicts)):
        recorder.note(replace(snapshot, now_s=now_s), said)
        async with asyncio.timeout(10):
            while len(times(tmp_path)) < (2 if said is verdicts else 1):
                await asyncio.sleep(0.01)
    task.cancel()
    assert times(tmp_path) == [1.0, 3.0]


def times(folder: Path) -> list[float]:
    """When the recorded decisions were made."""
    return [read(path)[0].now_s for path in sorted(folder.glob("*.gz"))]


async def test_a_folder_that_cannot_be_written_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    recorder = Recorder(tmp_path / "file")
    task = asyncio.create_task(recorder.run())
    snapshot, verdicts = decision()
    for _ in range(3):
        recorder.note(snapshot, verdicts)
        await asyncio.sleep(0.05)
    task.cancel()
    assert caplog.text.count("decisions are not recorded") == 1


def test_explain_prints_the_tree_with_each_level_s_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    snapshot, verdicts = decision()
    lines = explain(snapshot, verdicts, "decode")
    assert lines[0] == "PodGroup default/decode (at least 2 pods)"
    assert lines[1].startswith("  InsufficientResource: 1 of 2 TP groups admitted")
    assert lines[2] == "  TP group decode-0: 2 of 2 pods bound on n0, n1"
    assert lines[3].startswith("  TP group decode-1: 0 of 2 pods bound; waits: 1 of 2 TP groups")
    path = write(tmp_path, snapshot, verdicts)
    assert main(["scheduler", "explain", "default/decode", "--decision", str(path)]) == 0
    assert capsys.readouterr().out.splitlines() == lines
    assert main(["scheduler", "explain", "nobody", "--decision", str(path)]) == 2
    assert "there are: default/composite/s, default/decode" in capsys.readouterr().err


def test_explain_begins_at_the_root_and_names_what_is_wrong() -> None:
    groups = [
        composite("s", 2),
        composite("decode", 1, parent="s", topology=names.TOPOLOGY_RACK),
        leaf("d-0", 2, parent="decode"),
        leaf("lost", parent="nowhere"),
    ]
    snapshot = see([node("n0")], tp_group("d-0", 0, [8, 8]), groups)
    lines = explain(snapshot, Verdicts(), "d-0")
    assert [line for line in lines if "PodGroup" in line] == [
        "CompositePodGroup default/s (at least 2 children)",
        "  CompositePodGroup default/decode (at least 1 children; required topology.roleratio.dev/rack)",
        "    PodGroup default/d-0 (at least 2 pods)",
    ]
    assert explain(snapshot, Verdicts(), "default/lost")[1].startswith("  InvalidGroup: the parent default/composite/")
    with pytest.raises(NoSuchGang, match="no PodGroup or CompositePodGroup x in namespace other"):
        explain(snapshot, Verdicts(), "other/x")
