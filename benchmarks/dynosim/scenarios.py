"""The scenarios: which engines on which cards, the SLO, what a start takes, the first sizes, and which trace.

Rules:
1. `num_gpu_blocks` of a role is (0.9 x 141 GB x TP - weights) / KV bytes of a token / 64, whole blocks.
2. What differs between two policies of a scenario is the policy alone.
3. A request that has no last token `GRACE_S` after the last arrival is unfinished.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from policies.model import Pair, Role

SYSTEM, BACKEND, BACKEND_VERSION = "h200_sxm", "vllm", "current"
CARD_GB, MEMORY_SHARE = 141.0, 0.9
BLOCK_TOKENS, TRACE_BLOCK_TOKENS = 64, 512
MAX_SEQS, MAX_BATCHED_TOKENS, MAX_MODEL_LEN = 256, 8192, 131_072
MAX_GPUS = 128
GRACE_S = 300.0
FIRST_TICK_S = 5.0
TRACES_MADE = 2
"""One more whenever traces.py makes other requests of the same load, so that old files are not taken for new ones."""

Router = Literal["round_robin", "kv_router"]


@dataclass(frozen=True, slots=True)
class Model:
    """Weights as published (parameters x bytes each), KV bytes of a token: layers x 2 x KV heads x dimensions x 2 B."""

    path: str
    weights_gb: float
    kv_bytes_per_token: int
    moe_tp: int | None = None


QWEN3_30B_A3B = Model("Qwen/Qwen3-30B-A3B", 61.1, 48 * 2 * 4 * 128 * 2, moe_tp=2)
LLAMA_70B = Model("meta-llama/Meta-Llama-3.1-70B", 141.1, 80 * 2 * 8 * 128 * 2)
QWEN3_32B_FP8 = Model("Qwen/Qwen3-32B-FP8", 34.3, 64 * 2 * 8 * 128 * 2)


@dataclass(frozen=True, slots=True)
class Load:
    """A trace, made anew from a seed: `sine`, or a file of the shared traces, `speed` times as fast, each request
    `copies` times within +-`within_s` of its time; from a data set of clients those of `start_s` on, at `mean_rps`,
    each client as bursty as it was, only slower.
    """

    kind: Literal["sine", "azure", "mooncake", "servegen"]
    file: str = ""
    duration_s: float = 0.0
    speed: float = 1.0
    copies: int = 1
    within_s: float = 0.0
    start_s: float = 0.0
    mean_rps: float = 0.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """One deployment under one load."""

    name: str
    about: str
    model: Model
    load: Load
    ttft_ms: float
    itl_ms: float
    startup_s: float
    initial: Pair
    tp: Mapping[Role, int] = field(default_factory=lambda: {Role.PREFILL: 2, Role.DECODE: 2})
    router: Router = "round_robin"
    static: tuple[Pair, ...] = ()
    """Fixed sizes along the frontier."""

    def blocks(self, role: Role) -> int:
        """KV blocks of one engine."""
        free_bytes = (MEMORY_SHARE * CARD_GB * self.tp[role] - self.model.weights_gb) * 1e9
        return int(free_bytes / self.model.kv_bytes_per_token / BLOCK_TOKENS)

    def engine(self, role: Role) -> dict[str, Any]:
        """The arguments of the simulator's `MockEngineArgs`."""
        moe = {} if self.model.moe_tp is None else {"aic_moe_tp_size": self.model.moe_tp, "aic_moe_ep_size": 1}
        return {
            "engine_type": "vllm",
            "worker_type": role.value,
            "num_gpu_blocks": self.blocks(role),
            "block_size": BLOCK_TOKENS,
            "max_num_seqs": MAX_SEQS,
            "max_num_batched_tokens": MAX_BATCHED_TOKENS,
            "max_model_len": MAX_MODEL_LEN,
            "startup_time": self.startup_s,
            "aic_backend": BACKEND,
            "aic_system": SYSTEM,
            "aic_backend_version": BACKEND_VERSION,
            "aic_tp_size": self.tp[role],
            "aic_model_path": self.model.path,
            **moe,
        }

    def facts(self) -> dict[str, Any]:
        """What a policy is told (REFEREE_CONTEXT), less the two tables."""
        return {
            "ttft_ms": self.ttft_ms,
            "itl_ms": self.itl_ms,
            "startup_s": self.startup_s,
            "gpus_prefill": self.tp[Role.PREFILL],
            "gpus_decode": self.tp[Role.DECODE],
            "max_gpus": MAX_GPUS,
            "init_prefill": self.initial.prefill,
            "init_decode": self.initial.decode,
            "max_batched_tokens": MAX_BATCHED_TOKENS,
            "max_seqs": MAX_SEQS,
            "kv_tokens_prefill": self.blocks(Role.PREFILL) * BLOCK_TOKENS,
            "kv_tokens_decode": self.blocks(Role.DECODE) * BLOCK_TOKENS,
            "router": self.router,
        }

    def load_key(self) -> dict[str, Any]:
        """What a made trace depends on, beside the seed."""
        return {**asdict(self.load), "made": TRACES_MADE}


_AZURE_CODE = "azure_llm_2023_code.csv.gz"
_AZURE_CONVERSATION = "azure_llm_2023_conv.csv.gz"

SCENARIOS: dict[str, Scenario] = {
    one.name: one
    for one in (
        Scenario(
            "sine",
            "1 to 24 req/s, period 900 s, 8000 in, 1000 out",
            QWEN3_30B_A3B,
            Load("sine", duration_s=2100.0),
            ttft_ms=3000.0,
            itl_ms=35.0,
            startup_s=60.0,
            initial=Pair(1, 1),
            static=(Pair(2, 3), Pair(3, 3), Pair(3, 4), Pair(4, 4)),
        ),
        Scenario(
            "m-large",
            "ServeGen m-large at 10 req/s, 6 h",
            LLAMA_70B,
            Load("servegen", "servegen/m-large", duration_s=21_600.0, start_s=834_600.0, mean_rps=10.0),
            ttft_ms=2000.0,
            itl_ms=30.0,
            startup_s=120.0,
            initial=Pair(1, 1),
            static=(Pair(1, 2), Pair(2, 1), Pair(2, 2), Pair(2, 3), Pair(3, 2)),
        ),
        Scenario(
            "azure-code",
            "Azure code, each request 6 times within +-5 s",
            QWEN3_32B_FP8,
            Load("azure", _AZURE_CODE, copies=6, within_s=5.0),
            ttft_ms=1000.0,
            itl_ms=30.0,
            startup_s=120.0,
            initial=Pair(4, 2),
            static=(Pair(10, 3), Pair(12, 3), Pair(14, 3), Pair(16, 3), Pair(18, 4), Pair(27, 4)),
        ),
        Scenario(
            "azure-conversation",
            "Azure conversation, each request 6 times within +-5 s",
            QWEN3_32B_FP8,
            Load("azure", _AZURE_CONVERSATION, copies=6, within_s=5.0),
            ttft_ms=1000.0,
            itl_ms=30.0,
            startup_s=120.0,
            initial=Pair(3, 6),
            static=(Pair(2, 5), Pair(3, 5), Pair(3, 6), Pair(3, 7), Pair(4, 6), Pair(4, 7)),
        ),
        Scenario(
            "azure-conversation-fast",
            "Azure conversation at 6 x speed",
            QWEN3_32B_FP8,
            Load("azure", _AZURE_CONVERSATION, speed=6.0),
            ttft_ms=1000.0,
            itl_ms=30.0,
            startup_s=120.0,
            initial=Pair(2, 4),
            static=(Pair(2, 4), Pair(2, 5), Pair(3, 5), Pair(3, 6), Pair(4, 6)),
        ),
        Scenario(
            "mooncake",
            "Mooncake conversation, arrivals spread over their 3 s",
            QWEN3_32B_FP8,
            Load("mooncake", "mooncake_fast25_conversation.jsonl.gz", within_s=3.0),
            ttft_ms=10_000.0,
            itl_ms=50.0,
            startup_s=120.0,
            initial=Pair(1, 1),
            tp={Role.PREFILL: 4, Role.DECODE: 2},
            router="kv_router",
            static=(Pair(1, 1), Pair(2, 1), Pair(2, 2), Pair(2, 3), Pair(3, 2)),
        ),
    )
}
