"""Where the gateway's time goes: one of the loads, with the gateway under cProfile.

Rule: an aid to find what to look at. A profiler slows small functions most, so nothing here is a figure.
"""

from __future__ import annotations

import pstats
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, TypeAlias

from tests.bench.load import Window, answers
from tests.bench.measure import BURSTS, CONNECTIONS
from tests.bench.process import run
from tests.bench.subjects import GATEWAY, mock_upstream, question, subject
from tests.bench.upstream import PACES

Load: TypeAlias = Literal["whole", "burst", "paced"]

SECONDS = 5.0
PACED = 100  # streams: what a profiled gateway can keep up with
SHOWN = 45  # functions


def profile(load: Load) -> None:
    """Print the functions that took most time of their own."""
    with TemporaryDirectory() as folder, mock_upstream() as upstream:
        file = Path(folder) / "stats"
        with subject(GATEWAY, upstream.port, ("-m", "cProfile", "-o", str(file))) as gateway:
            asked, connections = question(gateway), CONNECTIONS
            if load != "whole":
                pace = PACES[load]
                events = round(SECONDS / pace.interval) * pace.burst
                asked = question(gateway, load, events, stop=load == "burst")
                connections = BURSTS if load == "burst" else PACED
            tally = run(answers(asked, connections, Window(0, SECONDS)))
        print(f"{tally.intact} answers, {tally.characters} characters streamed")
        pstats.Stats(str(file)).strip_dirs().sort_stats("tottime").print_stats(SHOWN)
