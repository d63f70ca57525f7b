"""The one error of the benchmarks: a module of its own, so that what needs no processes imports nothing for it."""

from __future__ import annotations


class BenchmarkError(Exception):
    """Nothing could be measured; one line says why."""
