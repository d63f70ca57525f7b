"""Decisions kept in a folder: the newest KEPT, each a file that `roleratio scheduler replay` decides again.

Rules:
1. Only a decision that says something new is written, by a thread: the loop waits for no disk.
2. A file that cannot be written is told once and scheduling goes on.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from pathlib import Path

from gangscheduler.model import Snapshot, Verdicts
from gangscheduler.record import BadRecord, from_json, to_json

log = logging.getLogger("gangscheduler")

KEPT = 100
_PATTERN = "decision-*.json.gz"


class Recorder:
    """Writes what `note` is given while `run` runs; of decisions that come faster than the disk only the newest."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._newest: tuple[Snapshot, Verdicts] | None = None
        self._last = Verdicts()
        self._some = asyncio.Event()
        self._failed = False

    def note(self, snapshot: Snapshot, verdicts: Verdicts) -> None:
        """Keep this decision, unless it says what the last one said and binds nothing."""
        if verdicts.bindings or verdicts != self._last:
            self._last, self._newest = verdicts, (snapshot, verdicts)
            self._some.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._some.wait()
            self._some.clear()
            decision, self._newest = self._newest, None
            if decision is not None:
                await self._write(*decision)

    async def _write(self, snapshot: Snapshot, verdicts: Verdicts) -> None:
        try:
            await asyncio.to_thread(write, self._folder, snapshot, verdicts)
        except OSError as error:
            if not self._failed:
                log.warning("decisions are not recorded: %s", error)
            self._failed = True
        else:
            self._failed = False


def write(folder: Path, snapshot: Snapshot, verdicts: Verdicts) -> Path:
    """One file, whole or not at all; older ones beyond KEPT go. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"decision-{round(snapshot.now_s * 1000):014}.json.gz"
    text = json.dumps(to_json(snapshot, verdicts), separators=(",", ":"))
    unfinished = path.with_suffix(".new")
    unfinished.write_bytes(gzip.compress(text.encode(), compresslevel=1))
    unfinished.rename(path)
    for old in sorted(folder.glob(_PATTERN))[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def read(path: Path) -> tuple[Snapshot, Verdicts]:
    """A recorded decision, packed or not. Raises BadRecord, OSError."""
    data = path.read_bytes()
    try:
        text = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
        return from_json(json.loads(text))
    except (EOFError, gzip.BadGzipFile, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadRecord(f"not JSON: {error}") from error
