"""The OpenAI completions protocol: requests in, events and errors out; no I/O.

Rules:
1. What a client did wrong is a BadRequest that names the field; it becomes an error in OpenAI's form.
2. A stream's JSON is made once per request: a token is its word between two fixed pieces of bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from serving.tokens import VOCABULARY_SIZE, WORD_BYTES

DONE = b"data: [DONE]\n\n"
TOKEN_MARK = b'"index":0'
"""Occurs once in every event that carries a token, and nowhere else in a stream."""

_DEFAULT_MAX_TOKENS = 16
_UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "n": (None, 1),
    "best_of": (None, 1),
    "echo": (None, False),
    "logprobs": (None,),
    "suffix": (None, ""),
    "stop": (None, "", []),
}


class BadRequest(Exception):
    """A request that no worker can serve; the fault is the client's."""

    def __init__(self, message: str, param: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.status = status


@dataclass(frozen=True, slots=True)
class Completion:
    """A valid request body."""

    prompt: str | list[int]
    max_tokens: int
    stream: bool
    include_usage: bool
    body: dict[str, Any] = field(repr=False)


def parse_completion(raw: bytes, model_name: str) -> Completion:
    """The request in a body. Raises BadRequest."""
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise BadRequest(f"the body is a JSON {type(body).__name__}; expected an object")
    model = body.get("model", model_name)
    if model != model_name:
        raise BadRequest(f"model {model!r} does not exist; served is {model_name!r}", "model", 404)
    for name, allowed in _UNSUPPORTED.items():
        if body.get(name) not in allowed:
            raise BadRequest(f"{name} = {body[name]!r} is not supported; leave it out", name)
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise BadRequest("stream_options: expected an object", "stream_options")
    return Completion(
        prompt=_prompt(body),
        max_tokens=_max_tokens(body),
        stream=_flag(body, "stream"),
        include_usage=_flag(options, "include_usage"),
        body=body,
    )


def check_length(prompt_tokens: int, max_tokens: int, limit_tokens: int) -> None:
    """Raise BadRequest when prompt and answer cannot fit together."""
    if prompt_tokens == 0:
        raise BadRequest("prompt has no tokens; expected at least one", "prompt")
    if prompt_tokens + max_tokens > limit_tokens:
        raise BadRequest(
            f"this model's maximum context length is {limit_tokens} tokens, but {prompt_tokens} in the prompt"
            f" and {max_tokens} in max_tokens were requested; shorten either",
            "prompt" if prompt_tokens >= limit_tokens else "max_tokens",
        )


def _prompt(body: Mapping[str, Any]) -> str | list[int]:
    prompt = body.get("prompt")
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, list) and all(type(token) is int and 0 <= token < VOCABULARY_SIZE for token in prompt):
        return prompt
    raise BadRequest("prompt: expected a string or a list of token ids", "prompt")


def _max_tokens(body: Mapping[str, Any]) -> int:
    value = body.get("max_tokens")
    if value is None:
        return _DEFAULT_MAX_TOKENS
    if type(value) is not int or value < 1:
        raise BadRequest(f"max_tokens = {value!r}: expected a whole number above 0", "max_tokens")
    return value


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name, False)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise BadRequest(f"{name} = {value!r}: expected true or false", name)


def error_body(message: str, kind: str, param: str | None = None, code: int | None = None) -> bytes:
    """An error in OpenAI's form."""
    return _compact({"error": {"message": message, "type": kind, "param": param, "code": code}})


def error_event(message: str, kind: str) -> bytes:
    """An error inside a stream that has begun."""
    return b"data: " + error_body(message, kind) + b"\n\n"


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """OpenAI's usage object."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def completion_body(request_id: str, created_s: int, model: str, text: str, used: dict[str, int], **more: Any) -> bytes:
    """A whole answer, not streamed."""
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": "length"}
    return _compact({**_head(request_id, created_s, model), "choices": [choice], "usage": used, **more})


class EventFrames:
    """The pieces around the words of one streamed answer, already in HTTP/1.1 chunks."""

    __slots__ = ("_finish", "_usage_head", "after", "before")

    def __init__(self, request_id: str, created_s: int, model: str) -> None:
        head = json.dumps(_head(request_id, created_s, model), separators=(",", ":"))[:-1]
        start = f'data: {head},"choices":[{{"index":0,"text":"'.encode()
        end = b'","logprobs":null,"finish_reason":null}]}\n\n'
        self.before = b"%x\r\n" % (len(start) + WORD_BYTES + len(end)) + start
        self.after = end + b"\r\n"
        self._finish = (start, b'","logprobs":null,"finish_reason":"length"}]}\n\n')
        self._usage_head = f'data: {head},"choices":[],"usage":'.encode()

    def last(self, word: bytes, used: dict[str, int] | None) -> bytes:
        """The last word, the usage where it was asked for, and the end of the events."""
        start, end = self._finish
        events = start + word + end
        if used is not None:
            events += self._usage_head + _compact(used) + b"}\n\n"
        return chunk(events + DONE)


def chunk(data: bytes) -> bytes:
    """One chunk of HTTP/1.1's chunked transfer coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def unchunked(data: bytes) -> bytes:
    """The body in whole chunks of HTTP/1.1's chunked transfer coding."""
    parts: list[bytes] = []
    at = 0
    while at < len(data):
        end = data.index(b"\r\n", at)
        size = int(data[at:end].partition(b";")[0], 16)
        parts.append(data[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
    return b"".join(parts)


def text_of(stream: bytes) -> tuple[str, dict[str, int]]:
    """The text and the usage (empty if there is none) of a whole stream, for answers that are not streamed."""
    texts: list[str] = []
    used: dict[str, int] = {}
    for line in stream.split(b"\n\n"):
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        texts += [choice["text"] for choice in event.get("choices", [])]
        used = event.get("usage") or used
    return "".join(texts), used


def _head(request_id: str, created_s: int, model: str) -> dict[str, Any]:
    return {"id": f"cmpl-{request_id}", "object": "text_completion", "created": created_s, "model": model}


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
