"""`python tables.py ENGINES`: how long passes take, as the simulator itself reckons it; runs beside Dynamo.

ENGINES is a JSON file {"prefill": engine arguments, "decode": engine arguments}; on standard output comes
{"prefill_ms": [[new, cached, ms]], "decode_ms": [[sequences, context, ms]]}. Every policy is told the same.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

NEW = (16, 64, 128, 256, 512, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152, 65536)
NEW_LONG = (98304, 131072)
CACHED = (0, 2048, 8192, 16384, 32768, 65536, 131072)
SEQUENCES = (1, 2, 4, 8, 12, 16, 24, 32, 40, 48, 56, 64, 72, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256)
CONTEXTS = (128, 512, 1024, 2048, 4096, 6144, 8192, 12288, 16384, 32768, 65536, 131072)


def main() -> int:
    """Print the tables of the engines in a file."""
    from dynamo._internal.aic import create_session

    engines = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    prefill, decode = (create_session(**session(engines[role])) for role in ("prefill", "decode"))
    chunk = engines["prefill"]["max_num_batched_tokens"]
    news = [*((new, cached) for new in NEW for cached in CACHED if new <= chunk or cached == 0)]
    news += [(new, 0) for new in NEW_LONG]
    longest = engines["decode"]["max_model_len"]
    found = {
        "prefill_ms": [[new, cached, prefill.predict_prefill(1, new, cached)] for new, cached in news],
        "decode_ms": [
            [sequences, context, decode.predict_decode(sequences, context, 2)]
            for sequences in SEQUENCES
            for context in CONTEXTS
            if context <= longest
        ],
    }
    print(json.dumps(found))
    return 0


def session(engine: dict[str, Any]) -> dict[str, Any]:
    """What Dynamo calls a session, for the engine's arguments."""
    return {
        "backend_name": engine["aic_backend"],
        "system": engine["aic_system"],
        "model_path": engine["aic_model_path"],
        "tp_size": engine["aic_tp_size"],
        "backend_version": engine["aic_backend_version"],
        "moe_tp_size": engine.get("aic_moe_tp_size"),
        "moe_ep_size": engine.get("aic_moe_ep_size"),
    }


if __name__ == "__main__":
    sys.exit(main())
