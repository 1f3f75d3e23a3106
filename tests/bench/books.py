"""What the ledger costs a request: ``python -m tests.bench.books [--requests N] [--fsync batch]``.

Requests begin and end as fast as one event loop can, some of them side by side; nothing else is done. The
figures are CPU time: of the event loop's thread, where requests wait for it, and of the whole process, with
the thread that brings rows into the database.
Rule: a round is one ledger on a new SQLite file, and the median of the rounds counts.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

from pydantic import SecretStr

from gateway.ledger import Ledger
from gateway.store.config import Store
from tests.ledger.books import FOREVER, intent, record

ROUNDS = 5
SIDE_BY_SIDE = (1, 64)

Fsync = Literal["never", "batch", "always"]


@dataclass(frozen=True)
class Cost:
    """Microseconds of CPU a request."""

    loop: float
    process: float


async def measured(folder: Path, fsync: Fsync, requests: int, side_by_side: int) -> Cost:
    store = Store(url=SecretStr("sqlite:///gateway.db"), fsync=fsync, retain_days=FOREVER)
    ledger = Ledger(store, folder)
    await ledger.start()
    await ledger.settle()
    numbers = iter(range(requests))

    async def client() -> None:
        for number in numbers:
            id = f"req_{number:024x}"
            await ledger.begin(intent(id))
            ledger.observe(record(id))

    thread, process = time.thread_time(), time.process_time()
    await asyncio.gather(*(client() for _ in range(side_by_side)))
    thread = time.thread_time() - thread
    await ledger.settle()
    process = time.process_time() - process
    await ledger.aclose()
    return Cost(thread / requests * 1e6, process / requests * 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--fsync", choices=("never", "batch", "always"), default="batch")
    given = parser.parse_args()
    for side_by_side in SIDE_BY_SIDE:
        costs = []
        for _ in range(ROUNDS):
            with tempfile.TemporaryDirectory() as folder:
                costs.append(
                    asyncio.run(measured(Path(folder), given.fsync, given.requests, side_by_side))
                )
        loop, process = median(cost.loop for cost in costs), median(cost.process for cost in costs)
        print(f"{side_by_side:3} side by side: {loop:5.1f} us on the loop, {process:5.1f} us in all")


if __name__ == "__main__":
    main()
