"""`python -m tests.controlplane.run COMMAND...`: a control plane for a command, that starts while the command does.

Rules:
1. The command is told by $ROLERATIO_TEST_PLANE where the handover will be: a file, once the control plane is ready.
2. Whoever starts the control plane ends it, when the command has ended; the exit code is the command's.
3. Where there is none to start, or another one serves, the command runs all the same: the tests say what is missing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.controlplane import start
from tests.controlplane.build import INSTEAD
from tests.controlplane.plane import Absent, ControlPlane
from tests.controlplane.process import Process

HANDOVER = "ROLERATIO_TEST_PLANE"
POLL_S = 0.1


def main(command: Sequence[str]) -> int:
    """Run the command beside a control plane; its exit code, 2 without a command."""
    if not command:
        print("usage: python -m tests.controlplane.run COMMAND...", file=sys.stderr)
        return 2
    began_s = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="roleratio-control-plane-") as folder:
        handover = Path(folder) / "handover.json"
        try:
            available = start.programs() if not os.environ.get(INSTEAD[0]) else None
        except Absent:
            available = None
        if available is None:
            return subprocess.run(command).returncode
        with _running(command, os.environ | {HANDOVER: str(handover)}) as child:
            try:
                with start.control_plane(available, Path(folder)) as plane:
                    print(f"control plane ready after {time.monotonic() - began_s:.1f} s", file=sys.stderr, flush=True)
                    _write(handover, _described(plane))
                    return child.wait()
            except start.StartError as error:
                _write(handover, {"error": str(error)})
                return child.wait()


def handed_over(handover: Path) -> ControlPlane:
    """The control plane that was started for this command. Raises StartError when it did not start."""
    deadline_s = time.monotonic() + start.START_S
    while not handover.exists():
        if time.monotonic() > deadline_s:
            raise start.StartError(f"{HANDOVER}={handover}: no control plane within {start.START_S:.0f} s")
        time.sleep(POLL_S)
    found = json.loads(handover.read_text(encoding="utf-8"))
    if "error" in found:
        raise start.StartError(found["error"])
    folder = Path(found["folder"])
    plane = ControlPlane(found["url"], Path(found["ca_file"]), Path(found["kubeconfig"]), folder)
    for name, (pid, argv) in found["processes"].items():
        plane.processes[name] = Process.known(name, argv, folder / f"{name}.log", pid)
    return plane


def _described(plane: ControlPlane) -> dict[str, object]:
    processes = {name: (process.pid, process.argv) for name, process in plane.processes.items()}
    paths = {"ca_file": str(plane.ca_file), "kubeconfig": str(plane.kubeconfig), "folder": str(plane.folder)}
    return {"url": plane.url, "processes": processes} | paths


def _write(handover: Path, content: dict[str, object]) -> None:
    """At once: who waits for the file reads it whole."""
    unfinished = handover.with_suffix(".new")
    unfinished.write_text(json.dumps(content), encoding="utf-8")
    unfinished.rename(handover)


@contextmanager
def _running(command: Sequence[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The command, which gets a Ctrl-C of its own from the terminal and a SIGTERM from here."""
    child = subprocess.Popen(command, env=environment)
    try:
        yield child
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
