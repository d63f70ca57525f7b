"""`roleratio forecast`: one series from a Prometheus or a CSV, its quantiles at a horizon, and how good such were."""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoscaler.errors import UserError
from roleratio.commands.common import number

if TYPE_CHECKING:
    from forecasting.model import Forecast
    from forecasting.rolling import Rolled
    from forecasting.series import Grid

EXAMPLE = "roleratio forecast --csv demand.csv --horizon-s 1200 --plot forecast.svg"
QUANTILES = (0.5, 0.9, 0.99)
SHOWN = 288
"""Steps of history in a picture."""
FAN = 5
DAY_S = 86_400.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the series is, the horizon, and the form of the answer."""
    add = parser.add_argument
    add("query", nargs="?", metavar="QUERY", help="with --prometheus: a query that gives one series, as sum(rate(...))")
    add("--prometheus", metavar="URL", help="a Prometheus, or a store that speaks its API")
    add("--csv", type=Path, metavar="FILE", help="CSV, gzip or not: a header, time (s or ISO 8601), value")
    add("--horizon-s", type=number(0, above=True), metavar="H", help="seconds ahead (default: one step)")
    add("--step-s", type=number(0, above=True), metavar="S", help="step (default: that of the CSV; a Prometheus: 600)")
    add(
        "--history-s", type=number(0, above=True), default=14 * DAY_S, metavar="S", help="(Prometheus; default 14 days)"
    )
    add("--zeros", choices=("auto", "idle", "missing"), default="auto", help="what a 0 in a CSV is (default auto)")
    add("--plot", type=Path, metavar="FILE", help="write a picture (SVG)")
    add("-o", "--output", choices=("table", "json"), default="table", help="(default table)")
    add("--timeout-s", type=number(0, above=True), default=30.0, metavar="S", help="wait so long (default %(default)g)")


def run(arguments: argparse.Namespace) -> int:
    """Read, learn, forecast, print."""
    from forecasting.online import Online
    from forecasting.rolling import rolled
    from forecasting.series import SeriesError

    try:
        name, grid = _series(arguments)
        horizon_s = arguments.horizon_s or grid.step_s
        steps = Online(grid.step_s, QUANTILES).steps(horizon_s)
        run_of = rolled(grid, steps, QUANTILES)
        said = run_of.forecast
        if arguments.plot:
            _write(arguments.plot, _picture(name, grid, steps, run_of))
    except SeriesError as error:
        raise UserError(str(error)) from error
    if arguments.output == "json":
        print(json.dumps({"series": name, **_about(grid), **said.to_json()}, indent=2))
    else:
        print(_table(name, grid, said))
    return 0


def _series(arguments: argparse.Namespace) -> tuple[str, Grid]:
    """The name and the grid of what was asked for. Raises UserError, SeriesError."""
    from forecasting.series import regular
    from forecasting.table import read_points

    if (arguments.csv is None) == (arguments.prometheus is None):
        raise UserError("expected one of --csv FILE and --prometheus URL QUERY")
    if arguments.csv is not None:
        if arguments.query is not None:
            raise UserError(f"QUERY {arguments.query!r}: only with --prometheus URL; a CSV is read as it is")
        try:
            raw = arguments.csv.read_bytes()
        except OSError as error:
            raise UserError(f"--csv {arguments.csv}: cannot be read: {error.strerror}; give a file") from error
        return str(arguments.csv), regular(read_points(raw, str(arguments.csv)), arguments.step_s, arguments.zeros)
    if arguments.query is None:
        raise UserError("--prometheus: no QUERY; give one that gives one series, as sum(rate(http_requests_total[5m]))")
    step_s = max(1, round(arguments.step_s or 600))
    # A store knows a zero from nothing: what is missing has no sample.
    return arguments.query, regular(_asked(arguments, step_s), float(step_s), "idle")


def _asked(arguments: argparse.Namespace, step_s: int) -> list[tuple[float, float]]:
    """The points of the one series that a query gives. Raises UserError."""
    from pydantic import ValidationError

    from autoscaler.adapters.promclient import PromClient, PrometheusError
    from autoscaler.settings import MetricsSettings

    try:
        settings = MetricsSettings.model_validate(
            {"prometheusUrl": arguments.prometheus, "scrapeTimeoutS": arguments.timeout_s}
        )
    except ValidationError:
        raise UserError(f"--prometheus {arguments.prometheus!r}: expected http://HOST or https://HOST") from None
    client = PromClient(settings)
    end_s = int(time.time()) // step_s * step_s
    try:
        answer = client.ask_range(arguments.query, end_s - round(arguments.history_s), end_s, step_s)
    except PrometheusError as error:
        raise UserError(f"--prometheus {arguments.prometheus}: {error}") from error
    finally:
        client.close()
    if len(answer.series) != 1:
        raise UserError(f"QUERY {arguments.query!r}: gives {len(answer.series)} series; expected one, as of sum(...)")
    return [(float(at_s), float(value)) for at_s, value in answer.series[0].get("values", ())]


def _about(grid: Grid) -> dict[str, Any]:
    known = sum(not math.isnan(value) for value in grid.values.tolist())
    return {
        "step_s": grid.step_s,
        "steps": len(grid.values),
        "known": known,
        "partial": grid.partial,
        "refused": grid.refused,
        "zeros_missing": grid.zeros_missing,
    }


def _table(name: str, grid: Grid, said: Forecast) -> str:
    about, measured = _about(grid), said.measured
    lines = [
        f"{name}: {about['steps']} steps of {grid.step_s:g} s, {about['known']} known, {about['partial']} partial, "
        f"{about['refused']} points refused{', zeros are missing' if grid.zeros_missing else ''}",
        f"{said.horizon_s:g} s ahead" + ("" if said.fallback == "none" else f" ({said.fallback})"),
        f"{'quantile':>10}{'value':>14}{'covered so far':>17}",
    ]
    covered = measured.coverage or (math.nan,) * len(said.quantiles)
    for level, value, share in zip(said.quantiles, said.values, covered, strict=True):
        lines.append(f"{level:>10g}{value:>14.6g}{'-' if math.isnan(share) else f'{share:.3f}':>17}")
    if measured.targets:
        last = measured.pinball_last_value
        saved = f", {1 - measured.pinball / last:+.1%} less than last value" if last > 0 else ""
        lines.append(
            f"{measured.targets} forecasts scored: pinball {measured.pinball:.6g}{saved}, WAPE {measured.wape:.1%}"
        )
    lines.append("median by " + ", ".join(f"{model} {weight:.2f}" for model, weight in said.weights.items()))
    return "\n".join(lines)


def _picture(name: str, grid: Grid, steps: int, run_of: Rolled) -> str:
    """The last SHOWN steps, the forecasts that had been made for them, and FAN horizons from now."""
    from forecasting.online import forecast
    from roleratio.forecast_plot import Picture, svg

    first = max(0, len(grid.values) - SHOWN)
    step_s = grid.step_s
    values = grid.values.tolist()
    past = []
    for place in range(max(first, steps), len(values)):
        said = run_of.forecasts[place - steps].tolist()
        past.append((grid.start_s + place * step_s, None if math.isnan(said[0]) else said))
    now_s = grid.end_s
    ahead = sorted({max(1, round(steps * share / FAN)) for share in range(1, FAN + 1)})
    said_now = [forecast(grid, count * step_s, QUANTILES) for count in ahead]
    fan = [(now_s, [values[-1]] * len(QUANTILES))] if not math.isnan(values[-1]) else []
    fan += [(now_s + one.horizon_s, list(one.values)) for one in said_now]
    actual = [(grid.start_s + place * step_s, values[place]) for place in range(first, len(values))]
    title = f"{name}: 0.5, 0.9 and 0.99 quantiles {steps * step_s:g} s ahead; past forecasts one horizon before"
    return svg(Picture(title, actual, past, fan, now_s))


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--plot {path}: cannot be written: {error.strerror}; give another path") from error
