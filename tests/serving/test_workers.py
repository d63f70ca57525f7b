"""Workers: KV from hand to hand, aborts, leases, drains, ranks."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from serving.http import DRAINING_HEADER
from serving.options import WorkerOptions
from serving.prefill import PrefillWorker
from serving.worker import profile_for

from .conftest import MODEL, Fleet, until, words_of


async def prefilled(fleet: Fleet, worker: PrefillWorker, prompt: list[int]) -> dict[str, Any]:
    """A prompt computed; its hand-over."""
    answer = await fleet.complete(worker.url, prompt, 1, kv_transfer_params={"do_remote_decode": True})
    assert answer["status"] == 200, answer
    params: dict[str, Any] = answer["kv_transfer_params"]
    return params


async def pull(fleet: Fleet, params: dict[str, Any]) -> int:
    async with fleet.client.post(f"{params['remote_url']}/kv/{params['remote_kv_id']}/pull") as response:
        return response.status


async def test_kv_is_handed_over_once(fleet: Fleet) -> None:
    worker = await fleet.prefill()
    params = await prefilled(fleet, worker, [1] * 100)
    assert (params["prompt_tokens"], worker.engine.pool.used_blocks) == (100, 7)
    assert await pull(fleet, params) == 200
    assert await pull(fleet, params) == 410
    assert worker.idle
    assert worker.engine.pool.used_blocks == 0


async def test_kv_that_nobody_pulls_ends_with_its_lease(fleet: Fleet) -> None:
    worker = await fleet.prefill(lease_s=0.2)
    params = await prefilled(fleet, worker, [1] * 100)
    assert not worker.idle
    await until(lambda: worker.idle)
    assert await pull(fleet, params) == 410


async def test_kv_that_is_pulled_twice_at_once_is_given_once(fleet: Fleet) -> None:
    worker = await fleet.prefill(transfer_gb_per_s=0.001)  # 100 ms for 100 tokens
    params = await prefilled(fleet, worker, [1] * 100)
    assert sorted(await asyncio.gather(pull(fleet, params), pull(fleet, params))) == [200, 410]


async def test_a_wrong_hand_over_fails_instead_of_giving_wrong_tokens(fleet: Fleet) -> None:
    prefill, decode = await fleet.pair()
    mine, other = await prefilled(fleet, prefill, [1, 2]), await prefilled(fleet, prefill, [3, 4])
    params = {**mine, "remote_kv_id": other["remote_kv_id"], "do_remote_prefill": True}
    answer = await fleet.complete(decode.url, [1, 2], 3, kv_transfer_params=params)
    assert answer["status"] == 502
    assert "another prompt" in answer["error"]["message"]
    right = {**mine, "do_remote_prefill": True}
    answer = await fleet.complete(decode.url, [1, 2], 3, kv_transfer_params=right)
    assert answer["choices"][0]["text"] == words_of([1, 2], 3)


@pytest.mark.parametrize("after_s", [0.0, 0.002, 0.02, 0.05, 0.15, 0.3])
async def test_a_client_that_goes_away_frees_everything(fleet: Fleet, after_s: float) -> None:
    # 1 + 40 ms to compute 4000 tokens in chunks, 80 ms to transfer, then decoding for long.
    prefill, decode = await fleet.pair(transfer_gb_per_s=0.05)
    router = await fleet.router()
    request = asyncio.ensure_future(fleet.complete(router.url, [1] * 4000, 90))
    await until(lambda: bool(router.metrics.in_flight))
    await asyncio.sleep(after_s)
    request.cancel()
    await until(lambda: not router.metrics.in_flight and prefill.idle and decode.idle)
    assert (prefill.engine.pool.used_blocks, decode.engine.pool.used_blocks) == (0, 0)
    assert router.metrics.finished["aborted"] == 1


async def test_pages_are_not_reused_while_they_are_written(fleet: Fleet) -> None:
    # Room for one request at a time on decode, so that B must have A's pages; 20 ms of transfer.
    prefill, decode = await fleet.pair(transfer_gb_per_s=0.01, kv_capacity_tokens=320)
    router = await fleet.router()
    chance = random.Random(5)
    for number in range(25):
        first = asyncio.ensure_future(fleet.complete(router.url, [number] * 200, 60))
        await asyncio.sleep(chance.uniform(0.0, 0.05))
        first.cancel()
        second = await fleet.complete(router.url, [1000 + number] * 200, 4)
        assert second["choices"][0]["text"] == words_of([1000 + number] * 200, 4)
    await until(lambda: prefill.idle and decode.idle)
    assert (prefill.engine.pool.used_blocks, decode.engine.pool.used_blocks) == (0, 0)


async def test_an_abort_with_a_dead_prefill_worker_frees_the_pages(fleet: Fleet) -> None:
    prefill, decode = await fleet.prefill(transfer_gb_per_s=0.0001), await fleet.decode()
    params = await prefilled(fleet, prefill, [1] * 100)
    request = asyncio.ensure_future(
        fleet.complete(decode.url, [1] * 100, 5, kv_transfer_params={**params, "do_remote_prefill": True})
    )
    await until(lambda: bool(decode.engine.loading))
    request.cancel()
    await asyncio.sleep(0.05)
    assert decode.engine.pool.used_blocks > 0  # still being written
    prefill.fail_all("its GPU is gone")
    await until(lambda: decode.idle)
    assert decode.engine.pool.used_blocks == 0


async def test_kv_not_yet_pulled_keeps_a_draining_prefill_worker(fleet: Fleet) -> None:
    worker, decode = await fleet.pair()
    held = [await prefilled(fleet, worker, [n] * 50) for n in range(5)]
    drain = asyncio.ensure_future(worker.drain())
    await asyncio.sleep(0.1)
    assert not drain.done()
    async with fleet.client.get(f"{worker.url}/ready") as response:
        assert response.status == 503
    async with fleet.client.get(f"{worker.url}/metrics") as response:
        page = await response.text()
    assert 'roleratio_worker_held_kv_requests{engine="0",model_name="tiny"} 5.0' in page
    assert 'roleratio_worker_draining{engine="0",model_name="tiny"} 1.0' in page
    refused = await fleet.complete(worker.url, [1], 1, kv_transfer_params={"do_remote_decode": True})
    assert (refused["status"], refused["headers"][DRAINING_HEADER]) == (503, "1")
    for number, params in enumerate(held):
        assert not drain.done()
        params["do_remote_prefill"] = True
        answer = await fleet.complete(decode.url, [0], 3, kv_transfer_params=params)
        assert answer["choices"][0]["text"] == words_of([number] * 50, 3)
    await asyncio.wait_for(drain, 2)


async def test_a_decode_worker_drains_without_cutting_anybody(fleet: Fleet) -> None:
    await fleet.prefill()
    victim, other = await fleet.decode(), await fleet.decode()
    router = await fleet.router()
    long = [asyncio.ensure_future(fleet.complete(router.url, [n], 150)) for n in range(6)]
    await until(lambda: len(victim.engine.running) == len(other.engine.running) == 3)
    drain = asyncio.ensure_future(victim.drain())
    late = await asyncio.gather(*(fleet.complete(router.url, [100 + n], 3) for n in range(20)))
    assert not drain.done()
    for number, answer in enumerate(late):
        assert answer["choices"][0]["text"] == words_of([100 + number], 3)
    for number, request in enumerate(long):
        assert (await request)["choices"][0]["text"] == words_of([number], 150)
    await asyncio.wait_for(drain, 2)
    assert victim.metrics.finished["length"] == 3
    assert router.metrics.finished == {"ok": 26, "rejected": 0, "failed": 0, "aborted": 0}


async def test_at_the_drain_limit_a_stream_ends_with_an_error(fleet: Fleet) -> None:
    await fleet.prefill()
    victim = await fleet.decode(drain_limit_s=0.1)
    router = await fleet.router()
    stream = asyncio.ensure_future(fleet.stream(router.url, [1], 2000))
    await until(lambda: victim.metrics.generation_tokens > 0)
    await asyncio.wait_for(victim.drain(), 2)
    assert "send the request again" in (await stream)[-1]["error"]["message"]
    assert router.metrics.finished["failed"] == 1


async def test_decode_waits_for_room_and_says_why(fleet: Fleet) -> None:
    prefill, decode = await fleet.prefill(transfer_gb_per_s=0.0001), await fleet.decode(max_num_seqs=2)
    router = await fleet.router()
    requests = [asyncio.ensure_future(fleet.complete(router.url, [n] * 200, 5)) for n in range(5)]
    await until(lambda: len(decode.engine.waiting) == 3)
    async with fleet.client.get(f"{decode.url}/metrics") as response:
        lines = (await response.text()).splitlines()
    labels = 'engine="0",model_name="tiny"'
    assert f"vllm:num_requests_waiting{{{labels}}} 5.0" in lines
    assert f'vllm:num_requests_waiting_by_reason{{{labels},reason="capacity"}} 3.0' in lines
    assert f'vllm:num_requests_waiting_by_reason{{{labels},reason="deferred"}} 2.0' in lines
    assert f'vllm:cache_config_info{{block_size="16",{labels},num_gpu_blocks="1000"}} 1.0' in lines
    assert f"vllm:kv_cache_usage_perc{{{labels}}} 0.026" in lines
    for request in requests:
        request.cancel()
    prefill.fail_all("the test is over")
    await until(lambda: decode.idle)


async def test_worker_metrics_count_what_was_done(fleet: Fleet) -> None:
    prefill, decode = await fleet.pair()
    router = await fleet.router()
    for number in range(3):
        await fleet.complete(router.url, [number] * 10, 4)
    assert (prefill.metrics.prompt_tokens, decode.metrics.prompt_tokens) == (30, 30)
    assert decode.metrics.generation_tokens == 12
    async with fleet.client.get(f"{decode.url}/metrics") as response:
        lines = (await response.text()).splitlines()
    labels = 'engine="0",model_name="tiny"'
    for line in (
        f"vllm:generation_tokens_total{{{labels}}} 12.0",
        'vllm:request_success_total{engine="0",finished_reason="length",model_name="tiny"} 3.0',
        f"vllm:time_to_first_token_seconds_count{{{labels}}} 3.0",
        f"vllm:inter_token_latency_seconds_count{{{labels}}} 9.0",
        f"vllm:request_queue_time_seconds_count{{{labels}}} 3.0",
    ):
        assert line in lines


async def test_a_worker_whose_rank_drops_serves_nothing(fleet: Fleet) -> None:
    await fleet.prefill()
    leader = await fleet.decode(group_size=2)
    await fleet.decode(load_s=1.0)
    assert not leader.ready
    _, rank = await asyncio.open_connection("127.0.0.1", leader.rank_port)
    rank.write(b"roleratio-rank 1\n")
    await until(lambda: leader.ready)
    router = await fleet.router()
    streams = [asyncio.ensure_future(fleet.stream(router.url, [n], 1000)) for n in range(2)]
    await until(lambda: len([flight for flight in router.metrics.in_flight if flight.tokens]) == 2)
    rank.close()
    for stream in streams:
        assert "broke off" in (await stream)[-1]["error"]["message"]
    assert not leader.ready
    assert leader.idle
    refused = await fleet.complete(leader.url, [1], 1)
    assert (refused["status"], refused["error"]["message"]) == (
        503,
        "this decode worker is not ready: 0 of 1 other ranks connected",
    )
    # What comes now waits for the other worker.
    assert (await fleet.complete(router.url, [7], 3))["choices"][0]["text"] == words_of([7], 3)


async def test_kv_held_by_a_group_that_lost_a_rank_is_lost(fleet: Fleet) -> None:
    worker, healthy = await fleet.prefill(group_size=2), await fleet.prefill()
    decode = await fleet.decode()
    _, rank = await asyncio.open_connection("127.0.0.1", worker.rank_port)
    rank.write(b"roleratio-rank 1\n")
    await until(lambda: worker.ready)
    params = await prefilled(fleet, worker, [1] * 50)
    rank.close()
    await until(lambda: not worker.ready)
    assert await pull(fleet, params) == 410
    assert worker.engine.pool.used_blocks == 0
    router = await fleet.router(worker, healthy, decode)
    assert (await fleet.complete(router.url, [9], 3))["choices"][0]["text"] == words_of([9], 3)


async def test_a_stranger_on_the_rank_port_is_no_rank(fleet: Fleet) -> None:
    leader = await fleet.prefill(group_size=2)
    for line in (b"GET / HTTP/1.1\n", b"roleratio-rank 2\n", b"roleratio-rank 0\n", b"\n"):
        reader, writer = await asyncio.open_connection("127.0.0.1", leader.rank_port)
        writer.write(line)
        assert await reader.read() == b""
        writer.close()
    assert not leader.ready


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"max_num_seqs": 9}, "max_num_seqs = 9: profile tiny covers up to 8"),
        ({"max_model_len": 5000}, "max_model_len = 5000: profile tiny covers up to 4096"),
        ({"transfer_gb_per_s": 0.0}, "transfer_gb_per_s = 0.0: expected a number above 0"),
    ],
)
def test_limits_that_the_profile_does_not_cover(tiny: str, options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        profile_for(WorkerOptions(profile=tiny, model_name=MODEL, **options))
