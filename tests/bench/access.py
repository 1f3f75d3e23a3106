"""What keys, limits, budgets and the ledger cost: ``python -m tests.bench.access [--quick] [--json]``.

Rule: the same gateway twice before the same mock upstream, open and with all of it, loaded in turn; every
ratio is of one round. Metrics are observed in both. Figures are CPU seconds of the gateway's process, the
thread of its ledger included.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from tests.bench.load import Question
from tests.bench.measure import BURSTS, CONNECTIONS, WARM, look
from tests.bench.process import OTHERS, TESTED, Server, started
from tests.bench.subjects import KEY, OPEN, gateway_command, mock_upstream, question
from tests.clients.process import free_port

TARGET = 1.35
MANY = 10**9
BOUNDS = {
    "limits": {
        "requests_per_minute": MANY, "tokens_per_minute": MANY, "requests_per_day": MANY,
        "concurrent": 10_000,
    },
    "budgets": [{"dollars": 1e6, "per": "month"}, {"tokens": MANY, "per": "day"}],
}  # fmt: skip
"""Of the key and of its team: everything that is counted, so high that nothing is refused."""
FULL: Mapping[str, Any] = {
    "auth": {"mode": "keys", "keys": [{"name": "bench", "key": KEY, "team": "bench", **BOUNDS}]},
    "teams": {"bench": BOUNDS},
}


@contextmanager
def gateway(name: str, upstream: int, access: Mapping[str, Any]) -> Iterator[Server]:
    """The gateway with this access, in front of the mock upstream."""
    port = free_port()
    with TemporaryDirectory() as folder:
        command = gateway_command(Path(folder), upstream, port, access=access)
        with started(name, command, port, TESTED) as server:
            yield server


def main() -> int:
    """Print CPU per request of both, and their ratio."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.access", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three rounds instead of eight")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {OTHERS})
    found = measured(3 if arguments.quick else 8)
    if arguments.json:
        print(json.dumps(found, indent=2))
        return 0
    print(f"{'load':<10} {'open':>10} {'all of it':>10} {'ratio':>8}   of single rounds")
    for load, each in found.items():
        spread = f"{min(each['ratios']):.2f} to {max(each['ratios']):.2f}"
        cells = f"{each['open'] * 1e6:>7.0f} us {each['full'] * 1e6:>7.0f} us {each['ratio']:>8.2f}"
        print(f"{load:<10} {cells}   {spread}")
    print(f"CPU of the gateway for each request; target {TARGET}")
    return 0


def measured(rounds: int) -> dict[str, dict[str, Any]]:
    """Seconds of CPU a request, by load; ``ratio`` is the median of those of single rounds."""
    seen: dict[str, dict[str, list[float]]] = {
        load: {"open": [], "full": []} for load in ("whole", "streamed")
    }
    with (
        mock_upstream() as upstream,
        gateway("open", upstream.port, OPEN) as bare,
        gateway("full", upstream.port, FULL) as full,
    ):
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            for server in (bare, full) if number % 2 else (full, bare):
                for load, (asked, connections) in _loads(server).items():
                    seen[load][server.name].append(_each(server, asked, connections))
    return {load: _compared(each) for load, each in seen.items()}


def _loads(server: Server) -> dict[str, tuple[Question, int]]:
    return {"whole": (question(server), CONNECTIONS), "streamed": (question(server, "burst", 50), BURSTS)}


def _each(server: Server, asked: Question, connections: int) -> float:
    """Seconds of CPU for one request. Raises if one was not answered as it should."""
    seen = look(server, asked, connections, WARM, 1.5)
    if seen.tally.failures:
        raise RuntimeError(seen.tally.failures[0])
    return seen.cpu / max(seen.tally.answers, 1)


def _compared(each: dict[str, list[float]]) -> dict[str, Any]:
    ratios = [full / bare for full, bare in zip(each["full"], each["open"], strict=True)]
    middles = {name: median(values) for name, values in each.items()}
    return {**middles, "ratio": median(ratios), "ratios": [round(ratio, 3) for ratio in ratios]}


if __name__ == "__main__":
    sys.exit(main())
