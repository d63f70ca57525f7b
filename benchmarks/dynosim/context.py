"""What a policy is told of a deployment (REFEREE_CONTEXT): read, and made a performance profile and settings of ours.

How a profile is made of two tables:
1. Prefill beyond the longest prompt of its table: in chunks of `max_batched_tokens`, each behind those before it, as
   the engine does it. A table without cached prefixes is taken to know no cost of them.
2. Decode beyond the table's last batch or context goes on along its last segment.
3. A hand-over costs nothing: the simulator has none in time, and the context says nothing of one.
Everything else is `perfmodel.convert`'s: gaps, and times that fall where they should rise.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from autoscaler.errors import UserError
from autoscaler.settings import Settings, parse_settings, problem_line, read_yaml
from perfmodel.convert import Cells, Limits, Measured, convert
from perfmodel.profile import Profile, ProfileError, parse_profile
from policies.model import Pair, Role

log = logging.getLogger(__name__)

ENVIRONMENT = "REFEREE_CONTEXT"
LONGEST_GROWTH = 1.5
FREE_GB_PER_S = 1e6

Point = tuple[float, float, float]


class Context(BaseModel):
    """The facts of one deployment, and how long its passes take."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    ttft_ms: float = Field(gt=0)
    itl_ms: float = Field(gt=0)
    startup_s: float = Field(gt=0)
    gpus_prefill: int = Field(ge=1)
    gpus_decode: int = Field(ge=1)
    max_gpus: int = Field(ge=2)
    init_prefill: int = Field(ge=0)
    init_decode: int = Field(ge=0)
    max_batched_tokens: int = Field(ge=1)
    max_seqs: int = Field(ge=1)
    kv_tokens_prefill: int = Field(ge=1)
    kv_tokens_decode: int = Field(ge=1)
    router: Literal["round_robin", "kv_router"]
    prefill_ms: tuple[Point, ...] = Field(min_length=1)
    decode_ms: tuple[Point, ...] = Field(min_length=1)

    @property
    def gpus(self) -> Pair:
        """GPUs of one group."""
        return Pair(self.gpus_prefill, self.gpus_decode)

    @property
    def initial(self) -> Pair:
        """Groups at the start."""
        return Pair(self.init_prefill, self.init_decode)

    def kv_tokens(self, role: Role) -> int:
        """Tokens that one group's cache holds."""
        return self.kv_tokens_prefill if role is Role.PREFILL else self.kv_tokens_decode


def load_context(path_text: str | None) -> Context:
    """The context in the file that REFEREE_CONTEXT names. Raises UserError in one line."""
    if not path_text:
        raise UserError(f"{ENVIRONMENT} is not set: expected the path of a JSON file with the deployment's facts")
    source = f"{ENVIRONMENT} {path_text}"
    try:
        raw = json.loads(Path(path_text).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{source}: cannot be read: {error.strerror}; give an existing file") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source}: not JSON: {error}") from error
    try:
        context = Context.model_validate(raw)
    except ValidationError as error:
        raise UserError("; ".join(problem_line(source, problem) for problem in error.errors())) from error
    if context.gpus_prefill + context.gpus_decode > context.max_gpus:
        raise UserError(
            f"{source}: max_gpus: {context.max_gpus}: expected at least {context.gpus_prefill + context.gpus_decode}, "
            "one group of each role; raise it"
        )
    if unknown := sorted(set(raw) - set(Context.model_fields)):
        log.warning("%s: %s: unknown, not used", source, ", ".join(unknown))
    return context


def profile_of(context: Context) -> Profile:
    """The deployment's performance profile. Raises UserError where the tables cannot give one."""
    try:
        return parse_profile(profile_document(context), "referee")
    except ProfileError as error:
        raise UserError("; ".join(f"{ENVIRONMENT}: {problem}" for problem in error.problems)) from error


def profile_document(context: Context) -> dict[str, Any]:
    """The same as the JSON of a profile file. Raises UserError where the tables cannot give one."""
    longest = max(context.kv_tokens_prefill, context.kv_tokens_decode)
    prefill = {(round(new), round(cached)): ms for new, cached, ms in context.prefill_ms if new > 0}
    decode = _envelope({(round(batch), round(tokens)): ms for batch, tokens, ms in context.decode_ms if batch > 0})
    measured = Measured(
        provenance=dict.fromkeys(("source", "licence", "model", "gpu", "backend", "backend_version"), "context"),
        tp=context.gpus_decode,
        prefill=_long_prompts(_with_cached(prefill), context.max_batched_tokens, longest),
        decode=_large_batches(decode, context.max_seqs, longest),
        kv_bytes_per_token=1,
        weights_gib=0.0,
        card_gib=1.0,
        link_gb_per_s=FREE_GB_PER_S,
    )
    limits = Limits(
        max_num_seqs=context.max_seqs,
        prefill_chunk_tokens=context.max_batched_tokens,
        kv_capacity_tokens=context.kv_tokens_decode,
    )
    try:
        return convert(measured, limits)
    except ProfileError as error:
        raise UserError("; ".join(f"{ENVIRONMENT}: {problem}" for problem in error.problems)) from error


def _envelope(cells: Cells) -> Cells:
    """No batch faster than a smaller one with no longer contexts: some are, since graphs are made for some sizes only,
    but a group passes through all of them.
    """
    return {
        (batch, tokens): max(ms for (rows, held), ms in cells.items() if rows <= batch and held <= tokens)
        for batch, tokens in cells
    }


def _with_cached(cells: Cells) -> Cells:
    """At least two lengths of cached prefixes."""
    cacheds = {cached for _, cached in cells}
    if cacheds != {0}:
        return cells
    return cells | {(new, 1): ms for (new, _), ms in cells.items()}


def _long_prompts(cells: Cells, chunk: int, longest: int) -> Cells:
    """Prompts up to the longest, in chunks. Nothing is added where the table reaches it, or is too small to tell."""
    news = sorted({new for new, cached in cells if cached == 0})
    if len(news) < 2 or news[-1] >= longest:
        return cells
    profile = _surfaces(cells)
    step = min(chunk, news[-1])
    found, tokens = dict(cells), float(news[-1])
    while tokens < longest:
        tokens = min(float(longest), tokens * LONGEST_GROWTH)
        whole, rest = divmod(int(tokens), step)
        ms = sum(profile.prefill_ms(step, index * step) for index in range(whole))
        found[int(tokens), 0] = ms + profile.prefill_ms(rest, whole * step)
    return found


def _surfaces(prefill: Cells) -> Profile:
    """A profile whose prefill is that of the table."""
    decode: Cells = {(batch, tokens): 1.0 for batch in (1, 2) for tokens in (1, max(new for new, _ in prefill))}
    names = ("source", "licence", "model", "gpu", "backend", "backend_version")
    measured = Measured(dict.fromkeys(names, "context"), 1, prefill, decode, 1, 0.0, 1.0, 1.0)
    try:
        return parse_profile(convert(measured, Limits(kv_capacity_tokens=1)), "prefill")
    except ProfileError as error:
        raise UserError("; ".join(f"{ENVIRONMENT}: {problem}" for problem in error.problems)) from error


def _large_batches(cells: Cells, batch: int, longest: int) -> Cells:
    """Decode up to a batch and a context, along the last segments."""
    found = dict(cells)
    contexts = sorted({tokens for _, tokens in found})
    batches = sorted({rows for rows, _ in found})
    if len(contexts) >= 2 and contexts[-1] < longest:
        for rows in batches:
            _go_on(found, [(rows, tokens) for tokens in contexts], (rows, longest), longest)
        contexts.append(longest)
    if len(batches) >= 2 and batches[-1] < batch:
        for tokens in contexts:
            _go_on(found, [(rows, tokens) for rows in batches], (batch, tokens), batch)
    return found


def _go_on(cells: dict[tuple[int, int], float], line: list[tuple[int, int]], new: tuple[int, int], at: int) -> None:
    """One more cell at the end of a line of cells: on the straight line through its last two."""
    known = [cell for cell in line if cell in cells]
    if len(known) < 2:
        return
    axis = 0 if known[0][1] == known[1][1] else 1
    (before, last), rise = known[-2:], cells[known[-1]] - cells[known[-2]]
    slope = max(0.0, rise) / (last[axis] - before[axis])
    cells[new] = cells[last] + slope * (at - last[axis])


def settings_of(context: Context, path: Path | None) -> Settings:
    """Our settings: the file's, or the product's defaults, and over them what the context says. Raises UserError.

    The file is a RoleRatioAutoscaler, or the `spec` of one alone; of it, what the context says is not used.
    """
    spec = _spec(path)
    spec |= {
        "service": "referee",
        "mode": "Active",
        "profile": "referee",
        "slo": {
            name: _part(spec.get("slo"), name) | {"targetMs": target_ms}
            for name, target_ms in (("ttft", context.ttft_ms), ("itl", context.itl_ms))
        },
        "gpuBudget": context.max_gpus,
    }
    for role in Role:
        most = (context.max_gpus - context.gpus[role.partner]) // context.gpus[role]
        facts = {"minGroups": 1, "maxGroups": max(1, most), "coldStartS": context.startup_s}
        spec[role.value] = _part(spec, role.value) | facts | {"maxNumSeqs": context.max_seqs}
    document = {"metadata": {"name": "referee"}, "spec": spec}
    return parse_settings(document, f"settings file {path}" if path else "settings")


def _part(spec: Any, key: str) -> dict[str, Any]:
    """A part of an object; what is no object is left to the checks of the whole."""
    part = spec.get(key) if isinstance(spec, Mapping) else None
    return dict(part) if isinstance(part, Mapping) else {}


def _spec(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    raw = read_yaml(path, f"settings file {path}")
    spec = raw.get("spec") if isinstance(raw, Mapping) and "spec" in raw else raw
    if spec is None:
        return {}
    if not isinstance(spec, Mapping):
        raise UserError(
            f"settings file {path}: expected keys of a RoleRatioAutoscaler's spec, found {type(spec).__name__}"
        )
    return dict(spec)
