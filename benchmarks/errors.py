"""Errors of the benchmarks: a module of its own, so that what needs no processes imports nothing for it."""

from __future__ import annotations

import argparse


class BenchmarkError(Exception):
    """Nothing could be measured; one line says why."""


def whole_number(text: str) -> int:
    """An option's whole number above 0. Raises ArgumentTypeError."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number above 0")
    return int(text)
