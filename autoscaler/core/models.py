"""Names of models: the one that is wanted against those that pages show."""

from __future__ import annotations

from collections.abc import Mapping


def mismatch(wanted: str | None, models: Mapping[str, int]) -> str:
    """Why no page counts for the model that is wanted, or nothing. `models`: name -> pods that serve it."""
    if wanted is None or wanted in models:
        return ""
    if not models:
        return f"metrics.model {wanted} matches 0 series: no page names a model; check the pods, or leave the key out"
    close = [
        name for name in models if _plain(name).startswith(_plain(wanted)) or _plain(wanted).startswith(_plain(name))
    ]
    shown = ", ".join(f"{name} exists on {models[name]} pods" for name in sorted(close or models)[:3])
    return f"metrics.model {wanted} matches 0 series, while {shown}; " + (
        f"did you mean {sorted(close)[0]}?" if close else "name one of them, or leave the key out"
    )


def _plain(name: str) -> str:
    """Without organisation and case."""
    return name.rpartition("/")[2].casefold()
