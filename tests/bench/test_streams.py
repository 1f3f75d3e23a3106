"""The look at how many streams a core carries counts what was sent, and says it as Markdown."""

from __future__ import annotations

import sys

import pytest

from tests.bench.streams import Step, measure, table

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="CPU and memory are read from /proc")


@pytest.mark.slow
def test_a_few_streams_are_counted() -> None:
    said: list[str] = []
    [step] = measure((4,), 1.0, said.append)
    assert said == ["4 streams"]
    assert step.streams == 4
    assert 0 < step.events < 4 * 50 * 2  # the pace of all of them, with room for a window that is read late
    assert step.core > 0


def test_an_event_costs_its_share_of_the_core() -> None:
    step = Step(streams=400, events=20_000.0, core=0.8, gap=0.03, each=40_000.0)
    assert step.cost == pytest.approx(40e-6)
    assert table([step]).splitlines()[-1] == "| 400 | 20000 | 80% | 40 us | 30 ms | 40 kB |"
