"""Ask a Prometheus, or a store that speaks its API: one answer, or one line that says why.

Rules:
1. Token, CA and headers are read from files at each use, so that a rotation needs no restart. They lie in a folder that
   bears the name of the store's host: who may write settings cannot have them sent elsewhere.
2. Warnings mean that a part of the data is missing: the answer is a lower bound. Infos are about the query alone.
3. Queries are sent as a form: a URL has limits. Redirections are not followed: they lead to log-in pages.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from prometheus_api_client.prometheus_connect import PrometheusConnect
from requests.auth import AuthBase
from urllib3.util.retry import Retry

from autoscaler.settings import MetricsSettings

CREDENTIALS = Path("/etc/roleratio/credentials")
"""Where credentials lie, one folder for each host; the environment's ROLERATIO_CREDENTIALS names another place."""

REMEDIES = {
    401: "it wants credentials: set metrics.prometheusTokenFile",
    403: "these credentials may not query it: check its token, and the tenant in metrics.prometheusHeadersFile",
    404: "no Prometheus API is there: metrics.prometheusUrl ends before /api/v1",
    413: "the query is too long for what stands before it: raise its limit of the request's size",
    422: "it does not evaluate the query: check the query, and its limits of series and samples",
    429: "it limits its queries: lengthen syncPeriodS, or raise its limit",
    502: "what stands before it does not reach it: look at its pods",
    503: "it is starting, or overloaded: look at its pods",
    504: "it takes too long: raise metrics.scrapeTimeoutS, or give it more CPU",
}


class PrometheusError(Exception):
    """No usable answer; one line that says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The series of a query; `warnings` say what may be missing among them."""

    series: tuple[Mapping[str, Any], ...]
    warnings: tuple[str, ...] = ()


class PromClient:
    """A store at `metrics.prometheusUrl`; not for several threads at once. `close()` when done."""

    def __init__(self, metrics: MetricsSettings) -> None:
        url = (metrics.prometheus_url or "").rstrip("/")
        self._timeout_s = metrics.scrape_timeout_s
        self._session = _Session(self._timeout_s)
        self._session.auth = _FromFiles(
            _File("prometheusTokenFile", url, metrics.prometheus_token_file),
            _File("prometheusHeadersFile", url, metrics.prometheus_headers_file),
        )
        self._ca = _File("prometheusCaFile", url, metrics.prometheus_ca_file)
        self._client = PrometheusConnect(url=url, session=self._session, retry=Retry(total=0), method="POST")

    def ask(self, query: str, at_s: float) -> Answer:
        """The answer to an instant query. Raises PrometheusError."""
        return self._answer(lambda: self._client.custom_query(query, params={"time": f"{at_s:.3f}"}))

    def ask_range(self, query: str, start_s: int, end_s: int, step_s: int) -> Answer:
        """The answer to a range query, its series with `values`. Raises PrometheusError."""
        start, end = (datetime.fromtimestamp(at_s, UTC) for at_s in (start_s, end_s))
        return self._answer(lambda: self._client.custom_query_range(query, start, end, str(step_s)))

    def _answer(self, ask: Callable[[], Any]) -> Answer:
        try:
            self._session.verify = str(self._ca.path) if self._ca.read() else True
            series = ask()
        except requests.Timeout as error:
            raise PrometheusError(f"no answer within {self._timeout_s:g} s") from error
        except requests.exceptions.SSLError as error:
            raise PrometheusError(
                f"cannot trust {self._client.url}: {_cause(error)}; set metrics.prometheusCaFile to its CA"
            ) from error
        except requests.ConnectionError as error:
            raise PrometheusError(f"cannot connect to {self._client.url}") from error
        except (requests.RequestException, ValueError, KeyError, TypeError) as error:
            raise PrometheusError(f"the answer is not a Prometheus': {short(error)}") from error
        if not isinstance(series, list) or not all(isinstance(one, dict) for one in series):
            raise PrometheusError("the answer is not a Prometheus': it holds no vector; a query must give one")
        return Answer(tuple(series), self._session.warnings)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def short(error: object) -> str:
    """In one line of bounded length."""
    return " ".join(str(error).split())[:200]


class _File:
    """A file in the folder of credentials for the host of the URL; `name` None: there is none."""

    def __init__(self, key: str, url: str, name: str | None) -> None:
        self._key = key
        self._host = urlsplit(url).hostname or ""
        self._name = name

    @property
    def path(self) -> Path:
        """Where it is now."""
        return Path(os.environ.get("ROLERATIO_CREDENTIALS") or CREDENTIALS) / self._host / (self._name or "")

    def read(self) -> str:
        """Its text, stripped. Raises PrometheusError."""
        if self._name is None:
            return ""
        try:
            text = self.path.read_text(encoding="utf-8").strip()
        except UnicodeDecodeError as error:
            raise PrometheusError(f"metrics.{self._key} {self.path}: expected text; write it again") from error
        except OSError as error:
            why = f"metrics.{self._key} {self.path}: cannot be read: {error.strerror}"
            raise PrometheusError(f"{why}; mount it there, or correct the key") from error
        if not text:
            raise PrometheusError(f"metrics.{self._key} {self.path}: is empty; write it again, or remove the key")
        return text


class _FromFiles(AuthBase):
    """Puts the token and the headers of the files onto a request."""

    def __init__(self, token: _File, headers: _File) -> None:
        self._token = token
        self._headers = headers

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if token := self._token.read():
            if len(token.split()) != 1 or not token.isascii():
                raise PrometheusError(f"{self._token.path}: expected one token, without spaces; write it again")
            request.headers["Authorization"] = f"Bearer {token}"
        for line in self._headers.read().splitlines():
            name, colon, value = (part.strip() for part in line.partition(":"))
            if not (name and colon and value) or not f"{name}{value}".isascii():
                # The line itself may be a secret.
                raise PrometheusError(f"{self._headers.path}: expected lines like `X-Scope-OrgID: team-a`")
            request.headers[name] = value
        return request


class _Session(requests.Session):
    """Sends the query as a form, refuses what is no answer, and keeps the warnings, which the client drops."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__()
        self.trust_env = False
        self.warnings: tuple[str, ...] = ()
        self._timeout_s = timeout_s

    def request(self, method: str, url: str, *args: Any, **options: Any) -> requests.Response:  # type: ignore[override]
        options |= {"data": options.pop("params", None), "allow_redirects": False, "timeout": self._timeout_s}
        response = super().request(method, url, *args, **options)
        said = _said(response)
        if response.is_redirect:
            to = short(response.headers["Location"])
            raise PrometheusError(f"HTTP {response.status_code}: leads to {to}: is that a log-in, or the right URL?")
        if response.status_code != 200:
            what = short(said.get("error") or response.text or response.reason)
            remedy = REMEDIES.get(response.status_code)
            raise PrometheusError(f"HTTP {response.status_code}: {what}{f': {remedy}' if remedy else ''}")
        self.warnings = tuple(_warnings(said))
        return response


def _said(response: requests.Response) -> Mapping[str, Any]:
    try:
        answer = response.json()
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _warnings(said: Mapping[str, Any]) -> Iterable[str]:
    """What says that data is missing. Some versions put what they have to say of the query among the warnings."""
    found = said.get("warnings") or ()
    yield from (short(one) for one in found if not str(one).startswith("PromQL info"))
    if said.get("isPartial") is True:
        yield "a part of its storage did not answer"


def _cause(error: BaseException) -> str:
    """What the TLS library says, without the wrapping."""
    text = str(error).partition("(_ssl.c")[0]
    return short(text.rpartition("] ")[2] or text).strip("' (")
