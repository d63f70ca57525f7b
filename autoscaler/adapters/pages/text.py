"""The one parser of the Prometheus text format and of OpenMetrics text: text -> series. Pure.

Rules:
1. Names stand as the page writes them: nothing is appended to counters, nothing is merged by type. Only names that an
   `Accept` header escaped (`U__vllm_3a_...`) are turned back.
2. Every line must be in the format, as Prometheus demands it too; labels and values are read for known names only.
3. A series that stands twice counts once. Twice with different values it is a conflict: its value is NaN, and its
   name is in `conflicts`, since which of the two is true cannot be known and must not depend on their order.
4. Work is linear in the page (possessive patterns, no backtracking) and bounded by the limits below.
5. What cannot be read is a PageError: one line that says what the page looks like, and a remedy where there is one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

MAX_BYTES = 16 * 1024 * 1024
MAX_SAMPLES = 100_000
MAX_LABELS = 128
MAX_LABEL_VALUE = 8 * 1024

Labels = tuple[tuple[str, str], ...]
"""Pairs of label and value, sorted by label."""

Sample = tuple[str, Mapping[str, str], float]
"""Name, labels, value: one series as a store of series knows it."""


class PageError(ValueError):
    """A page that cannot be read; one line that says why."""


@dataclass(frozen=True, slots=True)
class Exposition:
    """The series of one page: those of known names by name and labels, and the names of all others.

    `conflicts`: names of which a series stood there twice with different values; that series is NaN.
    """

    series: Mapping[str, Mapping[Labels, float]]
    others: frozenset[str] = frozenset()
    conflicts: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Reading:
    """What has been read so far."""

    series: dict[str, dict[Labels, float]] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)
    conflicts: set[str] = field(default_factory=set)
    samples: int = 0

    def add(self, name: str, labels: Labels, value: float) -> None:
        """One more sample of a known name."""
        known = self.series.setdefault(name, {})
        before = known.setdefault(labels, value)
        if before != value and not (math.isnan(before) and math.isnan(value) and name not in self.conflicts):
            known[labels] = math.nan
            self.conflicts.add(name)

    def done(self) -> Exposition:
        return Exposition(self.series, frozenset(self.others), frozenset(self.conflicts))


_NONE: Labels = ()
# Possessive groups are left out, since Python 3.11 before its fourth release forgets what they captured: a quoted text
# is written so that it can be read in one way only, and what follows it fails at once.
_TEXT = r'"[^"\\]*+(?:\\.[^"\\]*+)*"'
_INSIDE = rf'[^"{{}}]*+(?:{_TEXT}[^"{{}}]*+)*'
_LINE = re.compile(
    rf"""[ \t]*+
    ([a-zA-Z_:][a-zA-Z0-9_:]*+)? [ \t]*+                        # name, unless it is quoted among the labels
    (?: \{{ ({_INSIDE}) \}} [ \t]*+ | (?<=[ \t]) )
    ([^\s{{}}"\#]++)                                             # value
    (?: [ \t]++ -?[0-9][0-9.eE+-]*+ )?                         # timestamp
    (?: [ \t]++ \# [ \t]*+ \{{ {_INSIDE} \}} [ \t]++ [^\n]++ )?         # exemplar
    [ \t]*+
    """,
    re.VERBOSE | re.ASCII,
)
_LABEL = re.compile(
    rf"""[ \t]*+ (?: ([a-zA-Z_][a-zA-Z0-9_]*+ | {_TEXT}) [ \t]*+ = [ \t]*+ )? "([^"\\]*+(?:\\.[^"\\]*+)*)" """
    r"""[ \t]*+ (,|$)""",
    re.VERBOSE | re.ASCII,
)
_PLAIN_LABEL = re.compile(r'(?:^|,)([a-zA-Z_][a-zA-Z0-9_]*+)="([^"\\]*+)"')
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?inf(?:inity)?|nan", re.IGNORECASE)
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED_CHARACTER = re.compile(r"_(?:(_)|([0-9a-fA-F]{1,6})_)")
_TRTLLM_JSON = re.compile(r'"(?:iterLatencyMS|inflightBatchingStats|kvCacheStats|gpuMemUsage)"')


def parse(text: str, known: Collection[str] | None = None, content_type: str = "") -> Exposition:
    """The series of a page; of the names in `known` only, or of all. Raises PageError."""
    if len(text) > MAX_BYTES:
        raise PageError(f"is larger than {MAX_BYTES // 1024**2} MiB: is it a metrics page?")
    reading, blocks = _Reading(), dict[str, tuple[str, Labels]]()
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if not line or line[0] == "#" or line == "\r":
            continue
        if not _read(line.removesuffix("\r"), reading, blocks, known) and line.strip():
            raise PageError(_looks_like(text, number, line, last=number == len(lines)))
    if not reading.samples:
        raise PageError("is empty: the server answers, but exports nothing" if not text.strip() else "holds no sample")
    if "openmetrics" in content_type and text.rstrip()[-5:] != "# EOF":
        raise PageError("is cut off: an OpenMetrics page ends with '# EOF'; scrape it again")
    return reading.done()


def collect(samples: Iterable[Sample], known: Collection[str] | None = None) -> Exposition:
    """The same from series that somebody else has parsed, such as a Prometheus."""
    reading = _Reading()
    for name, labels, value in samples:
        if known is None or name in known:
            reading.add(name, tuple(sorted(labels.items())), float(value))
        else:
            reading.others.add(name)
    return reading.done()


def _read(line: str, reading: _Reading, blocks: dict[str, tuple[str, Labels]], known: Collection[str] | None) -> bool:
    """Take one sample line; whether it is in the format."""
    match = _LINE.fullmatch(line)
    if match is None:
        return False
    name, block, value = match.groups()
    reading.samples += 1
    if reading.samples > MAX_SAMPLES:
        raise PageError(f"has more than {MAX_SAMPLES} samples: is it an engine's page?")
    if name is not None and not name.startswith("U__") and known is not None and name not in known:
        reading.others.add(name)
        return _NUMBER.fullmatch(value) is not None
    quoted, labels = "", _NONE
    if block:
        if (found := blocks.get(block)) is None:
            if (found := _labels(block)) is None:
                return False
            blocks[block] = found
        quoted, labels = found
    if bool(quoted) == bool(name) or not _NUMBER.fullmatch(value):
        return False
    name = _unescaped(name or quoted)
    if known is None or name in known:
        reading.add(name, labels, float(value))
    else:
        reading.others.add(name)
    return True


def _labels(block: str) -> tuple[str, Labels] | None:
    """The quoted name, if there is one, and the labels between two braces; None where they are not in the format."""
    plain = _PLAIN_LABEL.findall(block)
    length = sum([len(label) + len(value) for label, value in plain]) + 4 * len(plain) - 1
    if length == len(block) <= MAX_LABEL_VALUE and len(dict(plain)) == len(plain) <= MAX_LABELS and "U__" not in block:
        # Every character has been matched: nothing is escaped, quoted or spaced, as on nearly all pages.
        return "", tuple(sorted(plain))
    quoted, pairs, at = "", dict[str, str](), 0
    end = len(block.rstrip())
    while at < end:
        match = _LABEL.match(block, at)
        if match is None:
            return None
        label, value, _ = match.groups()
        if "\\" in value:
            value = _unquoted(value)
        if len(value) > MAX_LABEL_VALUE or len(pairs) >= MAX_LABELS:
            raise PageError(
                f"has labels beyond the limits of {MAX_LABELS} labels and {MAX_LABEL_VALUE} characters each"
            )
        if label is None:
            if quoted:
                return None
            quoted = value
        else:
            label = _unescaped(_unquoted(label[1:-1]) if label[0] == '"' else label)
            if label in pairs:
                return None
            pairs[label] = value
        at = match.end()
    return quoted, tuple(sorted(pairs.items()))


def _unquoted(text: str) -> str:
    return _ESCAPE.sub(lambda match: "\n" if match[1] == "n" else match[1] if match[1] in '\\"' else match[0], text)


def _unescaped(name: str) -> str:
    """The name that Prometheus' escaping scheme `values` was applied to."""
    if not name.startswith("U__"):
        return name
    return _ESCAPED_CHARACTER.sub(lambda match: "_" if match[1] else _character(match[2]), name[3:])


def _character(digits: str) -> str:
    code = int(digits, 16)
    return chr(code) if code <= 0x10FFFF and not 0xD800 <= code < 0xE000 else "\ufffd"


def _looks_like(text: str, number: int, line: str, last: bool) -> str:
    """One line on a page of which a line is not in the format."""
    head = text.lstrip("\ufeff \t\r\n")[:4096]
    shown = repr(line.strip()[:60])
    if "\x00" in head or head.count("\ufffd") > 8:
        return "is binary, not text: ask for text/plain, and check port and path"
    if head.startswith("<"):
        return f"is HTML or XML, not metrics: check port and path ({shown})"
    if _is_json(head):
        if _TRTLLM_JSON.search(head) or head.strip() in ("[]", "{}"):
            return "is JSON, as TensorRT-LLM answers at /metrics: try /prometheus/metrics"
        return f"is JSON, not metrics: check port and path ({shown})"
    if last and number > 1:
        return f"is cut off in its last line, {number}: {shown}; scrape it again"
    return f"has a line that is not in the exposition format: line {number}: {shown}"


def _is_json(head: str) -> bool:
    return head.startswith("[") or bool(re.match(r'\{\s*(?:"[^"]{0,200}"\s*:|\}|\Z)', head))
