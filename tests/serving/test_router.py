"""The router's field cases: bad clients, failing, refusing, absent and silent workers."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from aiohttp import web

from serving.http import DRAINING_HEADER, Listener
from serving.options import StaticEndpoint
from serving.pool import Address, Pool

from .conftest import MODEL, Fleet, events_of, until, words_of


class Odd:
    """A server that answers every completion with one given answer, and counts."""

    def __init__(self, status: int, body: bytes = b"{}", headers: dict[str, str] | None = None) -> None:
        self.calls = 0
        self._answer = (status, body, headers)
        app = web.Application()
        app.router.add_post("/v1/completions", self._serve)
        self._listener = Listener(app, "127.0.0.1", 0)

    async def start(self, fleet: Fleet) -> str:
        port = await self._listener.start()
        fleet.stack.push_async_callback(self._listener.stop)
        return f"http://127.0.0.1:{port}"

    async def _serve(self, request: web.Request) -> web.Response:
        self.calls += 1
        status, body, headers = self._answer
        return web.Response(status=status, body=body, headers=headers, content_type="application/json")


def endpoints(*pairs: tuple[str, str]) -> tuple[StaticEndpoint, ...]:
    return tuple(StaticEndpoint(role=role, url=url) for role, url in pairs)


async def test_an_answer_that_is_not_streamed(fleet: Fleet) -> None:
    await fleet.pair()
    router = await fleet.router()
    answer = await fleet.complete(router.url, "one two three", 7)
    assert answer["choices"] == [
        {"index": 0, "text": words_of("one two three", 7), "logprobs": None, "finish_reason": "length"}
    ]
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 7, "total_tokens": 10}


async def test_usage_comes_with_the_stream_only_where_asked(fleet: Fleet) -> None:
    await fleet.pair()
    router = await fleet.router()
    plain = await fleet.stream(router.url, [1, 2], 3)
    asked = await fleet.stream(router.url, [1, 2], 3, stream_options={"include_usage": True})
    assert [bool(event["choices"]) for event in plain[:-1]] == [True] * 3
    assert asked[-2]["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    assert asked[-2]["choices"] == []
    assert asked[-1] == "[DONE]"


async def test_a_request_id_is_kept_to_the_end(fleet: Fleet) -> None:
    await fleet.pair()
    router = await fleet.router()
    body = {"prompt": [1], "max_tokens": 1, "stream": True}
    headers = {"X-Request-Id": "mine-7"}
    async with fleet.client.post(f"{router.url}/v1/completions", json=body, headers=headers) as response:
        assert response.headers["X-Request-Id"] == "mine-7"
        assert events_of(await response.read())[0]["id"] == "cmpl-mine-7"


async def test_client_error_trips_no_breaker(fleet: Fleet) -> None:
    prefill, decode = await fleet.prefill(), await fleet.decode(kv_capacity_tokens=2000)
    router = await fleet.router()
    for _ in range(10):
        answer = await fleet.complete(router.url, [1] * 4000, 200)
        assert (answer["status"], answer["error"]["param"]) == (400, "max_tokens")
    assert (router.metrics.requests, router.metrics.prompt_tokens) == (0, 0)
    # Too much for the decode worker alone: its own 400 comes through unchanged.
    for _ in range(10):
        answer = await fleet.complete(router.url, [1] * 1500, 600)
        assert (answer["status"], answer["error"]["type"]) == (400, "invalid_request_error")
    assert (await fleet.complete(router.url, [1, 2], 2))["status"] == 200
    assert router.metrics.finished == {"ok": 1, "rejected": 20, "failed": 0, "aborted": 0}
    await until(lambda: prefill.idle and decode.idle)


async def test_a_full_queue_is_offered_load_and_a_miss(fleet: Fleet) -> None:
    full = Odd(429, b'{"error": {"message": "full"}}')
    url = await full.start(fleet)
    router = await fleet.router(endpoints=endpoints(("prefill", url), ("decode", url)))
    for _ in range(10):
        answer = await fleet.complete(router.url, [1, 2], 2)
        assert (answer["status"], answer["error"]) == (429, {"message": "full"})
    assert (router.metrics.requests, router.metrics.finished["failed"], full.calls) == (10, 10, 10)


async def test_no_prefill_worker_means_503_and_no_prompt_on_decode(fleet: Fleet) -> None:
    decode = await fleet.decode()
    router = await fleet.router(decode, max_wait_s=0.2)
    answer = await fleet.complete(router.url, [1] * 500, 5)
    assert (answer["status"], answer["headers"]["Retry-After"]) == (503, "5")
    assert "no prefill worker" in answer["error"]["message"]
    assert router.metrics.no_worker == {"prefill": 1, "decode": 0}
    assert router.metrics.requests == 1
    assert decode.metrics.prompt_tokens == 0
    direct = await fleet.complete(decode.url, [1] * 500, 5)
    assert (direct["status"], direct["error"]["param"]) == (400, "kv_transfer_params")


async def test_a_failing_prefill_never_falls_back_to_decode(fleet: Fleet) -> None:
    broken = Odd(500)
    decode = await fleet.decode()
    url = await broken.start(fleet)
    router = await fleet.router(endpoints=endpoints(("prefill", url), ("decode", decode.url)), max_wait_s=0.3)
    answer = await fleet.complete(router.url, [1] * 50, 5)
    assert answer["status"] == 503
    assert decode.metrics.prompt_tokens == 0
    assert broken.calls == 1


@pytest.mark.parametrize("role", ["prefill", "decode"])
@pytest.mark.parametrize("how", ["refused", "draining", "broken", "closed"])
async def test_another_worker_takes_over_before_the_first_token(fleet: Fleet, role: str, how: str) -> None:
    await fleet.pair()
    headers = {DRAINING_HEADER: "1"} if how == "draining" else None
    odd = Odd(503 if how in ("refused", "draining") else 500, headers=headers)
    url = await odd.start(fleet)
    if how == "closed":
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    good = ((worker.role, worker.url) for worker in fleet.workers)
    router = await fleet.router(endpoints=endpoints((role, url), *good))
    for number in range(6):
        assert (await fleet.complete(router.url, [number], 3))["choices"][0]["text"] == words_of([number], 3)
    assert router.metrics.finished["ok"] == 6
    # It was asked once and then left alone for a while; a refusal is asked again soon.
    assert odd.calls <= (0 if how == "closed" else 6 if how == "refused" else 1)


async def test_a_prefill_worker_that_answers_nonsense_is_a_failing_one(fleet: Fleet) -> None:
    await fleet.pair()
    for body in (b"{}", b"[1", b'{"kv_transfer_params": 3}'):
        url = await Odd(200, body).start(fleet)
        good = ((worker.role, worker.url) for worker in fleet.workers)
        router = await fleet.router(endpoints=endpoints(("prefill", url), *good))
        assert (await fleet.complete(router.url, [1, 2], 3))["choices"][0]["text"] == words_of([1, 2], 3)
        assert router.metrics.finished["ok"] == 1


async def test_requests_wait_for_a_worker_to_come(fleet: Fleet) -> None:
    await fleet.pair(load_s=0.4)
    router = await fleet.router()
    waiting = asyncio.ensure_future(fleet.complete(router.url, [1, 2], 2))
    await asyncio.sleep(0.1)
    assert [flight.stage for flight in router.metrics.in_flight] == ["unassigned"]
    assert router.metrics.prompt_tokens == 2
    assert (await waiting)["status"] == 200


async def test_an_answer_that_breaks_off_ends_with_an_error_event(fleet: Fleet) -> None:
    await fleet.prefill()
    decode = await fleet.decode()
    router = await fleet.router()
    body: dict[str, Any] = {"model": MODEL, "prompt": [1], "max_tokens": 2000, "stream": True}
    async with fleet.client.post(f"{router.url}/v1/completions", json=body) as response:
        head = await response.content.readany()
        decode.fail_all("told to by the test")
        events = events_of(head + await response.read())
    assert "broke off after" in events[-1]["error"]["message"]
    assert "[DONE]" not in events
    assert router.metrics.finished["failed"] == 1


async def test_models_metrics_and_readiness(fleet: Fleet) -> None:
    await fleet.pair()
    router = await fleet.router()
    await fleet.complete(router.url, [1, 2], 4)
    async with fleet.client.get(f"{router.url}/v1/models") as response:
        assert [model["id"] for model in (await response.json())["data"]] == [MODEL]
    async with fleet.client.get(f"{router.url}/metrics") as response:
        lines = (await response.text()).splitlines()
    for line in (
        'roleratio_router_requests_total{target_namespace="",target_service="static"} 1.0',
        'roleratio_router_prompt_tokens_total{target_namespace="",target_service="static"} 2.0',
        'roleratio_router_generation_tokens_total{target_namespace="",target_service="static"} 4.0',
        'roleratio_router_requests_finished_total{outcome="ok",target_namespace="",target_service="static"} 1.0',
        'roleratio_router_time_to_first_token_seconds_count{target_namespace="",target_service="static"} 1.0',
        'roleratio_router_inter_token_latency_seconds_count{target_namespace="",target_service="static"} 3.0',
        'roleratio_router_requests_in_flight{stage="decode",target_namespace="",target_service="static"} 0.0',
    ):
        assert line in lines
    async with fleet.client.get(f"{router.url}/ready") as response:
        assert response.status == 200
    await router.drain()
    async with fleet.client.get(f"{router.url}/ready") as response:
        assert response.status == 503
    assert (await fleet.complete(router.url, [1], 1))["headers"][DRAINING_HEADER] == "1"


def test_the_pool_spreads_by_load_and_by_turn() -> None:
    pool = Pool()
    pool.replace(Address(uid, "decode", f"http://{uid}") for uid in "abc")
    picked = []
    for _ in range(6):
        endpoint = pool.pick("decode", 0.0)
        assert endpoint is not None
        endpoint.load += 1
        picked.append(endpoint.address.uid)
    assert sorted(picked) == ["a", "a", "b", "b", "c", "c"]
    newcomer = Address("d", "decode", "http://d")
    pool.replace([*(endpoint.address for endpoint in pool.of_role("decode")), newcomer])
    chosen = pool.pick("decode", 0.0)
    assert chosen is not None
    assert chosen.address == newcomer
    chosen.avoid_until_s = 9.0
    assert {pool.pick("decode", 8.0) for _ in range(9)} <= set(pool.of_role("decode")) - {chosen}
    assert pool.pick("prefill", 0.0) is None


def test_a_worker_that_comes_back_under_its_address_starts_afresh() -> None:
    pool = Pool()
    pool.replace([Address("uid-1", "decode", "http://a")])
    pool.of_role("decode")[0].avoid_until_s = 100.0
    pool.replace([Address("uid-1", "decode", "http://a")])
    assert pool.pick("decode", 1.0) is None
    assert pool.next_try_s("decode") == 100.0
    pool.replace([Address("uid-2", "decode", "http://a")])
    assert pool.pick("decode", 1.0) is not None


async def test_prompts_wait_in_the_router_and_a_new_worker_takes_them(fleet: Fleet) -> None:
    first, decode = await fleet.pair()
    router = await fleet.router()
    # Two prompts of 3,000 tokens are the most that is bound to a worker at once; the rest stays with the router.
    asked = [asyncio.create_task(fleet.complete(router.url, [n] * 3000, 1)) for n in range(12)]
    await until(lambda: router.metrics.requests == 12 and router.endpoints()[0].load > 0)
    bound = router.endpoints()[0].load
    assert bound <= 2 * 3000
    second = await fleet.prefill()
    addresses = [Address(worker.url, worker.role, worker.url) for worker in (first, second, decode)]
    router.take_over(addresses)
    answers = await asyncio.gather(*asked)
    assert [answer["status"] for answer in answers] == [200] * 12
    assert [answer["choices"][0]["text"] for answer in answers] == [words_of([n] * 3000, 1) for n in range(12)]
    assert second.metrics.prompt_tokens > 0


async def test_a_queue_is_not_an_outage(fleet: Fleet) -> None:
    await fleet.pair()
    router = await fleet.router(max_wait_s=0.05)
    answers = await asyncio.gather(*(fleet.complete(router.url, [n] * 4000, 1) for n in range(8)))
    assert [answer["status"] for answer in answers] == [200] * 8


def test_a_busy_worker_is_not_picked_but_an_idle_one_takes_any_prompt() -> None:
    pool = Pool()
    pool.replace([Address("a", "prefill", "http://a"), Address("b", "prefill", "http://b")])
    one, two = pool.of_role("prefill")
    one.load, two.load = 5000, 100
    assert pool.pick("prefill", 0.0, 4096) is two
    two.load = 4096
    assert pool.pick("prefill", 0.0, 4096) is None
    one.load = 0
    assert pool.pick("prefill", 0.0, 4096) is one
