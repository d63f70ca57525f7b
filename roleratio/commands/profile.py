"""`roleratio profile convert SOURCE TABLE`: a profile from a table of measured latencies.

Rule: the profile goes to the output alone; what was filled in or repaired is in its `provenance.notes`, and on stderr.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from autoscaler.errors import UserError

EXAMPLE = (
    "roleratio profile convert aic aic_pd_surfaces_vllm.csv.gz --model Qwen/Qwen3-32B --system h200_sxm --tp 2 "
    "--output qwen3-32b-h200-tp2.json"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to convert, and the engine's limits that no table knows."""
    from perfmodel.sources import SOURCES

    actions = parser.add_subparsers(dest="action", required=True, metavar="convert")
    convert = actions.add_parser("convert", help="make a profile from a table")
    convert.add_argument("source", choices=SOURCES, help="whose table it is")
    convert.add_argument("table", type=Path, metavar="TABLE", help="the table, a gzipped CSV file")
    convert.add_argument("--model", required=True, help="as the table spells it")
    convert.add_argument("--system", required=True, help="the card, as the table spells it")
    convert.add_argument("--tp", type=int, required=True, help="GPUs of one TP group")
    convert.add_argument("--max-model-len", type=int, help="longest context (default: all that the table covers)")
    convert.add_argument("--max-num-seqs", type=int, help="largest decode batch (default: the table's, up to 256)")
    convert.add_argument("--prefill-chunk-tokens", type=int, help="tokens of one prefill step (default 4096)")
    convert.add_argument("--kv-capacity-tokens", type=int, help="tokens of one group's KV cache (default: computed)")
    convert.add_argument("--transfer-gb-per-s", type=float, help="a group's KV link (default: the card's usual one)")
    convert.add_argument("--output", type=Path, metavar="FILE", help="the profile (default: stdout)")


def run(arguments: argparse.Namespace) -> int:
    """Write the profile. Raises UserError with every problem."""
    from perfmodel.convert import Limits, as_text, convert
    from perfmodel.profile import ProfileError
    from perfmodel.sources import SOURCES

    names = ("max_model_len", "max_num_seqs", "prefill_chunk_tokens", "kv_capacity_tokens", "transfer_gb_per_s")
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    wrong = [f"--{name.replace('_', '-')} {value:g}: expected above 0" for name, value in given.items() if value <= 0]
    if wrong:
        raise UserError(*wrong)
    try:
        measured = SOURCES[arguments.source](arguments.table, arguments.model, arguments.system, arguments.tp)
        document = convert(measured, Limits(**given))
    except ProfileError as error:
        raise UserError(*error.problems) from error
    if arguments.output is None:
        sys.stdout.write(as_text(document))
    else:
        _write(arguments.output, as_text(document))
    for note in document["provenance"]["notes"]:
        print(f"note: {note}", file=sys.stderr)
    return 0


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}; give another path") from error
