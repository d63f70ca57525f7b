"""The settings of the serving processes, with defaults from the environment that Kubernetes and LWS give.

Rule: nothing but the standard library, since the ranks import this file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

DEFAULT_MODEL = "Qwen/Qwen3-32B"
DEFAULT_PROFILE = "qwen3-32b-a100-tp2"
HTTP_PORT = 8000
LEADER_RANK_PORT = 8001
RANK_READY_PORT = 8002
DRAIN_LIMIT_S = 110.0
"""After it, streams end with an error that a client may retry: a little below the pods' grace period of 120 s,
after which they would be cut without a word."""


def env_text(name: str, default: str) -> str:
    """An environment variable; empty counts as absent."""
    return os.environ.get(name) or default


def env_whole(name: str, default: int) -> int:
    """An environment variable that holds a whole number. Raises ValueError with one clear line."""
    text = env_text(name, str(default))
    if not text.isdecimal():
        raise ValueError(f"environment variable {name} = {text!r}: expected a whole number, as LWS sets it")
    return int(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """The leader of a prefill or decode TP group. None means: as the profile says."""

    host: str = field(default_factory=lambda: env_text("POD_IP", "127.0.0.1"))
    port: int = HTTP_PORT
    rank_port: int = LEADER_RANK_PORT
    group_size: int = field(default_factory=lambda: env_whole("LWS_GROUP_SIZE", 1))
    model_name: str = DEFAULT_MODEL
    profile: str = DEFAULT_PROFILE
    load_s: float = 0.0  # how long the "weights" take to load
    max_num_seqs: int | None = None
    max_model_len: int | None = None
    kv_capacity_tokens: int | None = None
    transfer_gb_per_s: float | None = None
    lease_s: float = 60.0  # how long computed KV waits to be pulled
    drain_limit_s: float = DRAIN_LIMIT_S


@dataclass(frozen=True, slots=True, kw_only=True)
class RankOptions:
    """A pod of a TP group other than its leader."""

    host: str = field(default_factory=lambda: env_text("POD_IP", "127.0.0.1"))
    port: int = RANK_READY_PORT
    leader_address: str = field(default_factory=lambda: env_text("LWS_LEADER_ADDRESS", "127.0.0.1"))
    leader_port: int = LEADER_RANK_PORT
    index: int = field(default_factory=lambda: env_whole("LWS_WORKER_INDEX", 1))
    load_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticEndpoint:
    """A worker that is named instead of discovered."""

    role: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterOptions:
    """The router of one service: either `service` ("namespace/name", discovered) or `endpoints`."""

    host: str = field(default_factory=lambda: env_text("POD_IP", "127.0.0.1"))
    port: int = HTTP_PORT
    service: str = ""
    endpoints: tuple[StaticEndpoint, ...] = ()
    kubeconfig: str | None = None
    model_name: str = DEFAULT_MODEL
    profile: str = DEFAULT_PROFILE
    max_model_len: int | None = None
    max_wait_s: float = 60.0  # how long a request waits for a ready worker
    answer_limit_s: float = 600.0  # how long a worker may say nothing before it counts as failed
    drain_limit_s: float = DRAIN_LIMIT_S
