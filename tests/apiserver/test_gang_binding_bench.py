"""The benchmark beside kube-scheduler measures something and leaves nothing behind; how fast is never asserted here."""

from __future__ import annotations

import pytest

from benchmarks import gang_binding
from tests.controlplane import start


@pytest.mark.apiserver
@pytest.mark.timeout(170)
def test_both_bind_every_gang_and_the_figures_say_so(programs: start.Programs) -> None:
    assert start.SCHEDULER in programs
    sizes = gang_binding.Sizes(nodes=6, gangs=5, pods=2, rounds=2)
    figures = {one.name: one for one in gang_binding.measure(sizes)}
    assert figures["5 gangs of 2 on 6 nodes: ours"].at("median") > 0
    assert figures["5 gangs of 2 on 6 nodes: kube-scheduler"].at("median") > 0
    assert {name for name, one in figures.items() if one.claims} == {
        "time of ours in kube-scheduler's",
        "CPU of ours in kube-scheduler's",
    }
