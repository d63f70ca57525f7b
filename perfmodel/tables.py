"""Reads one table of a layer profile (.csv.gz), and says all that is wrong with it.

Rule: a header that comes again among the rows is skipped; any other row that cannot be read is a mistake.
"""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Sequence
from pathlib import Path

TIME = "time_us"
SHOWN = 10

Row = tuple[tuple[str | int, ...], float]
"""What identifies a row (a layer's name as text, counts as whole numbers), and its microseconds."""


def read_table(path: Path, keys: Sequence[str]) -> tuple[list[Row], list[str]]:
    """The rows of a table and its problems, one line each. Linear in the file."""
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
            table = list(csv.reader(lines))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        return [], [f"{path}: cannot be read: {reason}; expected a gzipped CSV file"]
    header = table[0] if table else []
    missing = [name for name in (*keys, TIME) if name not in header]
    if missing:
        return [], [f"{path}: column {name!r} is missing; found {', '.join(header) or 'nothing'}" for name in missing]
    columns = [header.index(name) for name in (*keys, TIME)]
    return _rows(path, table, columns, keys)


def _rows(path: Path, table: list[list[str]], columns: list[int], keys: Sequence[str]) -> tuple[list[Row], list[str]]:
    rows: dict[tuple[str | int, ...], float] = {}
    problems: list[str] = []
    for number, cells in enumerate(table[1:], start=2):
        if not cells or any(cell == name for cell, name in zip(cells, table[0], strict=False)):
            continue
        row = _row([cells[i] if i < len(cells) else "" for i in columns], keys)
        if isinstance(row, str):
            problems.append(f"{path}:{number}: {row}")
        elif row[0] in rows:
            problems.append(f"{path}:{number}: {dict(zip(keys, row[0], strict=True))} comes twice")
        else:
            rows[row[0]] = row[1]
    if not rows and not problems:
        problems.append(f"{path}: has no rows")
    return list(rows.items()), capped(path, problems)


def capped(table: Path | str, problems: list[str]) -> list[str]:
    """The first problems of a table, and how many more there are."""
    more = [f"{table}: and {len(problems) - SHOWN} more rows like these"] if len(problems) > SHOWN else []
    return problems[:SHOWN] + more


def _row(cells: Sequence[str], keys: Sequence[str]) -> Row | str:
    """The row, or what is wrong with it."""
    parsed: list[str | int] = []
    for name, cell in zip(keys, cells, strict=False):
        if name == "layer":
            parsed.append(cell)
        elif cell.isdecimal():
            parsed.append(int(cell))
        else:
            return f"{name} = {cell!r}: expected a whole number, 0 or more"
    try:
        us = float(cells[-1])
    except ValueError:
        us = math.nan
    if not (math.isfinite(us) and us > 0):
        return f"{TIME} = {cells[-1]!r}: expected microseconds above 0"
    return tuple(parsed), us
