"""What would fit, asked in JSON and over HTTP by somebody whom no API server knows."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gangscheduler.whatif import BadQuestion, fit_answer
from kubeapi.config import Config
from localcluster.apiserver import ApiServer
from tests.gangscheduler.builders import node, pod_spec, podgroup, see, tp_group
from tests.gangscheduler.test_gang_loop import scheduling, until


def test_it_says_how_many_more_fit_and_what_stops_the_next() -> None:
    snapshot = see([node("n0"), node("n1"), node("n2", unschedulable=True)], [], [])
    said = fit_answer(snapshot, {"pods": [pod_spec(8)], "limit": 9})
    assert (said["groups"], said["limit"], said["blockedNodes"]) == (2, 9, 1)
    assert said["reason"] == "NodesUnschedulable"
    assert fit_answer(snapshot, {"pods": [pod_spec(8)]})["reason"] == "Fits"


def test_what_waits_already_comes_first() -> None:
    waiting = see([node("n0"), node("n1")], tp_group("decode", 0, [8]), [podgroup("decode", 1)])
    assert fit_answer(waiting, {"pods": [pod_spec(8)], "limit": 5})["groups"] == 1


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ([], "expected an object"),
        ({}, "pods: expected a list of 1 to"),
        ({"pods": [7]}, "pods: expected a list"),
        ({"pods": [pod_spec(1)], "limt": 3}, "limt: unknown; expected pods, limit, podGroup"),
        ({"pods": [pod_spec(1)], "limit": 0}, "limit=0: expected a whole number"),
        ({"pods": [pod_spec(1)], "limit": True}, "limit=True: expected"),
        ({"pods": [pod_spec(1)], "podGroup": "decode"}, "podGroup='decode': expected namespace/name"),
        ({"pods": [{"containers": [{"resources": {"requests": {"cpu": "many"}}}]}]}, "cpu='many'"),
        ({"pods": [{"containers": [{"resources": {"requests": {"cpu": "-1"}}}]}]}, "cpu='-1': expected a quantity"),
        ({"pods": [{"containers": [{"resources": {"requests": {"cpu": "1e999999999"}}}]}]}, "expected a quantity"),
        ({"pods": [{"containers": 3}]}, "pods: not a list of pod specs"),
    ],
)
def test_a_question_that_cannot_be_understood(question: Any, said: str) -> None:
    with pytest.raises(BadQuestion) as caught:
        fit_answer(see([node("n0")], [], []), question)
    assert said in str(caught.value)


async def test_nobody_is_answered_whom_the_api_server_does_not_vouch_for(tmp_path: Path) -> None:
    """The embedded API server reviews no tokens: then nobody may ask."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with (
        ApiServer(log_dir=tmp_path) as server,
        scheduling(Config(server.url), http_port=port),
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http,
    ):

        async def ready() -> bool:
            try:
                async with http.get("/readyz") as answer:
                    return answer.status == 200
            except aiohttp.ClientConnectorError:
                return False

        await until(ready)
        question = {"pods": [pod_spec(1)]}
        for headers, status, said in (
            ({}, 401, "send a token of this cluster"),
            ({"Authorization": "Basic eDp5"}, 401, "send a token of this cluster"),
            ({"Authorization": "Bearer x"}, 503, "cannot be asked who may do this"),
        ):
            async with http.post("/v1/fit", json=question, headers=headers) as answer:
                assert answer.status == status
                assert said in (await answer.json())["error"]
            async with http.get("/v1/decision", headers=headers) as answer:
                assert answer.status == status
