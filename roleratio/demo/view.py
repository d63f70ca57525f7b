"""The live view: one `Look` as a terminal page (rich).

Rule: it only draws; every number was gathered by screen.py.
"""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from policies.model import ROLES, Pair, Role
from roleratio.demo.screen import Latency, Look, ms_text, number_text, percent_text

_COLOUR = {Role.PREFILL: "bright_blue", Role.DECODE: "dark_orange"}


def draw(look: Look) -> RenderableType:
    """The whole page."""
    title = f"roleratio demo   {look.t_s:.0f} s   {look.phase}"
    state = (_roles(look), _ratio(look), Text(), _service(look), Text(), _waiting(look), _conditions(look))
    body = Group(*state, _changes(look))
    below = f"Prometheus {look.prometheus}" if look.prometheus else None
    return Panel(
        body, title=title, title_align="left", subtitle=below, subtitle_align="left", box=box.ROUNDED, padding=(0, 1)
    )


def _roles(look: Look) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for head in ("role", "groups", "ready", "wanted", "desired", "draining", "queue", "running", "KV"):
        table.add_column(head, justify="left" if head in ("role", "groups") else "right")
    for role in ROLES:
        sample, decision = look.fleet[role], look.decided.decision if look.decided else None
        signals = decision.signals[role] if decision else None
        target = decision.target if decision else None
        numbers = ("-",) * 3 if sample is None else (str(sample.ready), str(sample.wanted), str(sample.draining))
        table.add_row(
            Text(role, style=f"bold {_COLOUR[role]}"),
            _bar(look, role),
            numbers[0],
            numbers[1],
            str(target.groups[role]) if target and target.desires(role) else "-",
            numbers[2],
            number_text(signals.waiting if signals else None),
            number_text(signals.running if signals else None),
            number_text(signals.kv_usage if signals else None, ".0%"),
        )
    return table


def _bar(look: Look, role: Role) -> Text:
    """A block for each group: full = ready, light = starting, dim = draining."""
    sample = look.fleet[role]
    bar = Text()
    if sample is not None:
        bar.append("█ " * sample.ready, style=_COLOUR[role])
        bar.append("░ " * sample.starting, style=_COLOUR[role])
        bar.append("▒ " * sample.draining, style="dim")
    bar.pad_right(max(0, 16 - len(bar)))
    return bar


def _ratio(look: Look) -> Text:
    ready = [sample.ready for role in ROLES if (sample := look.fleet[role]) is not None]
    text = Text("prefill : decode  ", style="dim")
    text.append(" : ".join(str(count) for count in ready) if len(ready) == 2 else "-", style="bold")
    if look.decided is not None:
        band, target = look.decided.settings.spec.ratio_band, look.decided.decision.target
        text.append(f"   wanted {_pair(target.groups)}" if target else "   wanted -", style="dim")
        text.append(
            f"   band {band.min:g} to {band.max:g}   budget {look.decided.settings.spec.gpu_budget} GPUs", "dim"
        )
    return text


def _pair(groups: Pair) -> str:
    return f"{groups.prefill} : {groups.decode}"


def _service(look: Look) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for head in ("", "p50", "p95", "SLO"):
        table.add_column(head, justify="left" if not head else "right")
    table.add_column("")
    requests = look.requests
    table.add_row("TTFT", *_latency(look.ttft), f"sent {requests.sent}   running {requests.running}")
    attained = f"attained {percent_text(requests.attained)}   failed {requests.failed}"
    table.add_row("ITL", *_latency(look.itl), attained)
    return table


def _latency(latency: Latency) -> tuple[str, Text, str]:
    missed = latency.p95 is not None and latency.p95 > latency.target
    p95 = Text(ms_text(latency.p95), style="bold red" if missed else "bold")
    return ms_text(latency.p50), p95, ms_text(latency.target)


def _waiting(look: Look) -> RenderableType:
    if not look.waiting:
        return Text("no gang waits for a place", style="dim")
    return Text("\n".join(f"waits  {text}" for text in look.waiting), style="yellow")


def _conditions(look: Look) -> RenderableType:
    """What lasts and has a cause: a hold, a pause, a limit, a source that cannot be read."""
    conditions = look.decided.decision.conditions if look.decided else ()
    caused = [f"{c.type}={c.status}  {c.message}" for c in conditions if c.message]
    lines = Text("\n".join(caused), style="yellow")
    lines.no_wrap = True
    lines.overflow = "ellipsis"
    return lines


def _changes(look: Look) -> RenderableType:
    lines = Text("\nlast decisions\n", style="dim")
    if not look.changes:
        lines.append("  none yet", style="dim")
    for text in reversed(look.changes):
        lines.append(f"  {text}\n", style="default")
    lines.no_wrap = True
    lines.overflow = "ellipsis"
    return lines
