"""Probes: how one is tried, and when its results make up a verdict.

Rules:
1. `Threshold` is pure; the checks below are plain sockets, because forty pods are probed every second.
2. A check returns None when it passed, else one line that says what went wrong.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kubeapi.client import Object
from localcluster.agent.child import Child
from localcluster.agent.environment import ContainerConfigError

Check = Callable[[], Awaitable[str | None]]


@dataclass(slots=True)
class Threshold:
    """Consecutive results against successThreshold and failureThreshold."""

    successes: int
    failures: int
    passed: bool = False
    streak: int = 0

    def observe(self, passed: bool) -> bool | None:
        """True or False once enough results in a row agree, None before."""
        self.streak = self.streak + 1 if passed == self.passed else 1
        self.passed = passed
        return passed if self.streak >= (self.successes if passed else self.failures) else None


@dataclass(frozen=True, slots=True)
class Probe:
    """One probe of a container, with Kubernetes' defaults."""

    check: Check
    initial_delay_s: float
    period_s: float
    timeout_s: float
    successes: int
    failures: int

    async def follow(self, on_result: Callable[[bool | None, str | None], Awaitable[None]]) -> None:
        """Try it every period and hand on (verdict, complaint), until cancelled."""
        threshold = Threshold(self.successes, self.failures)
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(self.initial_delay_s)
        while True:
            due = clock() + self.period_s
            complaint = await self._try()
            await on_result(threshold.observe(complaint is None), complaint)
            await asyncio.sleep(max(0.0, due - clock()))

    async def _try(self) -> str | None:
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self.check()
        except TimeoutError:
            return f"no answer within {self.timeout_s:g} s"
        except OSError as error:
            return os.strerror(error.errno) if error.errno else str(error)


def probe_of(container: Object, kind: str, ip: str, env: Mapping[str, str]) -> Probe | None:
    """`readinessProbe`, `livenessProbe` or `startupProbe` of a container, if it has one."""
    spec = container.get(kind)
    if not spec:
        return None
    check = _check_of(container, spec, ip, env)
    return Probe(
        check=check,
        initial_delay_s=spec.get("initialDelaySeconds") or 0,
        period_s=spec.get("periodSeconds") or 10,
        timeout_s=spec.get("timeoutSeconds") or 1,
        successes=spec.get("successThreshold") or 1,
        failures=spec.get("failureThreshold") or 3,
    )


def _check_of(container: Object, spec: Object, ip: str, env: Mapping[str, str]) -> Check:
    if get := spec.get("httpGet"):
        host, port = get.get("host") or ip, _port(container, get["port"])
        head = _request(host, get)
        return lambda: _http_get(host, port, head)
    if connect := spec.get("tcpSocket"):
        host, port = connect.get("host") or ip, _port(container, connect["port"])
        return lambda: _tcp_connect(host, port)
    if command := (spec.get("exec") or {}).get("command"):
        return lambda: _exec(command, env)

    async def unknown() -> str:
        return f"a probe by {', '.join(spec)} is not served; use httpGet, tcpSocket or exec"

    return unknown


def _port(container: Object, port: int | str) -> int:
    for declared in container.get("ports") or []:
        if declared.get("name") == port:
            return int(declared["containerPort"])
    if not str(port).isdigit():
        raise ContainerConfigError(f"container {container.get('name')}: a probe names port {port!r}, which it has not")
    return int(port)


def _request(host: str, get: Object) -> bytes:
    extra = "".join(f"{header['name']}: {header['value']}\r\n" for header in get.get("httpHeaders") or [])
    path = get.get("path") or "/"
    line = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: kube-probe/localcluster\r\n"
    return f"{line}{extra}Connection: close\r\n\r\n".encode()


async def _http_get(host: str, port: int, head: bytes) -> str | None:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(head)
        words = (await reader.readline()).split()
    finally:
        writer.close()
    if len(words) < 2 or not words[1].isdigit():
        return "no HTTP answer"
    status = int(words[1])
    return None if 200 <= status < 400 else f"HTTP probe failed with statuscode: {status}"


async def _tcp_connect(host: str, port: int) -> str | None:
    _, writer = await asyncio.open_connection(host, port)
    writer.close()
    return None


async def _exec(command: list[str], env: Mapping[str, str]) -> str | None:
    child = Child(command, env, Path("/dev/null"), cwd=None, append=True)
    code = await child.wait()
    return None if code == 0 else f"command exited with {code}"
