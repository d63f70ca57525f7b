"""Requests through a real router, real prefill and decode workers."""

from __future__ import annotations

import asyncio
import random

from .conftest import Fleet, words_of


async def test_streamed_tokens_are_those_of_the_prompt(fleet: Fleet) -> None:
    for _ in range(2):
        await fleet.prefill()
        await fleet.decode()
    router = await fleet.router()
    prompts = [[random.Random(n).randrange(1000) for _ in range(50 + n)] for n in range(20)]

    answers = await asyncio.gather(*(fleet.stream(router.url, prompt, 10) for prompt in prompts))

    for prompt, events in zip(prompts, answers, strict=True):
        assert events.pop() == "[DONE]"
        assert "".join(event["choices"][0]["text"] for event in events) == words_of(prompt, 10)
        assert [event["choices"][0]["finish_reason"] for event in events] == [None] * 9 + ["length"]
    assert router.metrics.finished == {"ok": 20, "rejected": 0, "failed": 0, "aborted": 0}
    assert router.metrics.generation_tokens == 200
    assert router.metrics.prompt_tokens == sum(map(len, prompts))
