"""The command: ``python -m tests.bench [--quick] [--json FILE] [--markdown]``, ``... profile LOAD``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import get_args

import orjson

from tests.bench.figures import lines, markdown, report, table
from tests.bench.measure import FULL, QUICK, measure
from tests.bench.process import OTHERS
from tests.bench.profiling import Load, profile

SHOWN = 10  # failures


def main() -> int:
    """1 if an answer was not what the upstream said; a missed target is shown, not an exit code."""
    arguments = _parser().parse_args()
    os.sched_setaffinity(0, {OTHERS})
    if arguments.command == "profile":
        profile(arguments.load)
        return 0
    plan = QUICK if arguments.quick else FULL
    findings = measure(plan, lambda text: print(text, file=sys.stderr, flush=True))
    found = lines(findings, plan)
    print(markdown(found, plan) if arguments.markdown else table(found))
    if arguments.json:
        arguments.json.write_bytes(orjson.dumps(report(found, findings, plan), option=orjson.OPT_INDENT_2))
    for failure in findings.failures[:SHOWN]:
        print(failure, file=sys.stderr)
    if findings.failures:
        print(f"{len(findings.failures)} answers were wrong", file=sys.stderr)
    return 1 if findings.failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure the gateway.")
    parser.add_argument("--quick", action="store_true", help="under a minute instead of four, and less exact")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write lines and samples to FILE")
    parser.add_argument("--markdown", action="store_true", help="print the block for the README")
    commands = parser.add_subparsers(dest="command")
    profiled = commands.add_parser("profile", help="where the gateway's time goes, by cProfile")
    profiled.add_argument("load", choices=get_args(Load))
    return parser


if __name__ == "__main__":
    sys.exit(main())
