"""What was found, against what was promised: as a table, as JSON, as a block for the README.

Rule: every target is in ``FIGURES``; medians are shown with the range they come from. Knows nothing about
how a figure was measured.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Literal, TypeAlias

from tests.bench.measure import Findings, Plan
from tests.bench.process import CORES
from tests.bench.subjects import BASELINE, GATEWAY, UPSTREAM

# ratio: to the baseline. over: what is added to the mock upstream's own. most, least: the value itself.
Judge: TypeAlias = Literal["ratio", "over", "most", "least"]
Samples: TypeAlias = Mapping[str, Sequence[float]]

COLUMNS = ("figure", "unit", "upstream", "baseline", "gateway", "compared", "target", "")
LIBRARIES = ("uvicorn", "uvloop", "httptools", "aiohttp", "pydantic")


@dataclass(slots=True, frozen=True)
class Figure:
    """One line. ``scale`` turns seconds or bytes into ``unit``; ``limit`` is in units, or a ratio."""

    key: str
    title: str  # with the plan's fields in braces
    unit: str
    scale: float
    judge: Judge
    limit: float | None = None


FIGURES = (
    Figure("cpu_whole", "CPU of a whole answer, 64 connections", "us", 1e6, "ratio", 1.6),
    Figure("cpu_burst", "CPU of an event, bursts of 100, stop set", "us", 1e6, "ratio", 2.0),
    Figure("cpu_short", "CPU of an event, answers of one such burst", "us", 1e6, "ratio", 2.0),
    Figure("cpu_paced", "CPU of an event, {streams} streams, one each 20 ms", "us", 1e6, "ratio", 1.4),
    Figure("gap_p99", "gap p99, {streams} streams, one each 20 ms", "ms", 1e3, "over", 30.0),
    Figure("endured_gap_p99", "gap p99, the same for {endurance:.0f} s", "ms", 1e3, "over", 30.0),
    Figure("endured", "texts intact after that", "%", 100, "least", 100.0),
    Figure("single_p50", "latency p50, whole, 1 connection", "ms", 1e3, "over"),
    Figure("single_p99", "latency p99, whole, 1 connection", "ms", 1e3, "over"),
    Figure("busy_p50", "latency p50, whole, 64 connections at full load", "ms", 1e3, "ratio"),
    Figure("busy_p99", "latency p99, whole, 64 connections at full load", "ms", 1e3, "ratio"),
    Figure("ready", "start to first 200", "s", 1, "most", 1.5),
    Figure("resident_idle", "resident, idle", "MB", 1e-6, "most", 90.0),
    Figure("resident_stream", "resident, each of {streams} streams", "kB", 1e-3, "most", 80.0),
    Figure("resident_after", "resident after the whole run", "MB", 1e-6, "most"),
)


@dataclass(slots=True, frozen=True)
class Line:
    """A figure with its medians in ``unit``, and what it is judged by."""

    key: str
    title: str
    unit: str
    medians: Mapping[str, float]
    compared: Sequence[float]  # a ratio, a difference or a value for each round
    judge: Judge
    limit: float | None
    ok: bool | None  # None where nothing was promised


def lines(findings: Findings, plan: Plan) -> list[Line]:
    """Everything that was found, in the order of ``FIGURES``."""
    return [_line(figure, findings.samples[figure.key], plan) for figure in FIGURES]


def _line(figure: Figure, samples: Samples, plan: Plan) -> Line:
    scaled = {name: [value * figure.scale for value in values] for name, values in samples.items()}
    compared = scaled[GATEWAY]
    if figure.judge == "ratio":
        compared = [ours / theirs for ours, theirs in zip(compared, scaled[BASELINE], strict=True)]
    elif figure.judge == "over":
        compared = [ours - theirs for ours, theirs in zip(compared, scaled[UPSTREAM], strict=True)]
    ok = None
    if figure.limit is not None:
        middle = median(compared)
        ok = middle >= figure.limit if figure.judge == "least" else middle <= figure.limit
    return Line(
        key=figure.key,
        title=figure.title.format(**asdict(plan)),
        unit=figure.unit,
        medians={name: median(values) for name, values in scaled.items()},
        compared=compared,
        judge=figure.judge,
        limit=figure.limit,
        ok=ok,
    )


def _cells(line: Line) -> tuple[str, ...]:
    sign, unit = {"ratio": ("", "x"), "over": ("+", "")}.get(line.judge, ("", ""))
    compared = ""
    if line.judge in ("ratio", "over"):
        digits = 2 if line.judge == "ratio" else 1
        middle, low, high = (f"{value(line.compared):.{digits}f}" for value in (median, min, max))
        compared = f"{sign}{middle}{unit} ({low} to {high})"
    target = ""
    if line.limit is not None:
        target = f"{'>=' if line.judge == 'least' else '<='} {sign}{line.limit:g}{unit}"
    shown = [_number(line.medians.get(name)) for name in (UPSTREAM, BASELINE, GATEWAY)]
    verdict = {True: "ok", False: "MISSED", None: ""}[line.ok]
    return (line.title, line.unit, *shown, compared, target, verdict)


def _number(value: float | None) -> str:
    """Three digits, or all before the point."""
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def machine() -> dict[str, Any]:
    """What the figures depend on beside the code."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "date": date.today().isoformat(),
        "cpu": models[0] if models else platform.machine(),
        "cores": len(CORES),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def table(found: Sequence[Line]) -> str:
    """For a terminal."""
    rows = [COLUMNS, *map(_cells, found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def markdown(found: Sequence[Line], plan: Plan) -> str:
    """For the README."""
    facts = machine()
    libraries = ", ".join(f"{name} {number}" for name, number in facts["libraries"].items())
    rows = [COLUMNS, ("---",) * len(COLUMNS), *map(_cells, found)]
    return (
        f"Measured on {facts['date']} with `make bench`: {facts['cores']} cores of {facts['cpu']}, "
        f"{facts['python']}, {libraries}. Medians of {plan.rounds} rounds, in brackets the range; "
        "upstream is the mock asked directly.\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in rows)
    )


def report(found: Sequence[Line], findings: Findings, plan: Plan) -> dict[str, Any]:
    """For ``--json``: the lines, and all samples in seconds, bytes and shares."""
    return {
        "machine": machine(),
        "plan": asdict(plan),
        "figures": [asdict(line) for line in found],
        "samples": findings.samples,
        "failures": findings.failures,
    }
