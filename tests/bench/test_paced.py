"""The paced engine keeps its slots and its pace, and what is printed of it says so."""

from __future__ import annotations

import asyncio
import sys

import pytest

from modal_backend.engine import Answer, Done, Piece, Request, Usage
from tests.bench.paced import CONTRACT, ENGINE, Findings, Look, Plan, measure, table
from tests.bench.paced import GATEWAY as BOTH
from tests.bench.pacing import Hand, Paced, every
from tests.serve.house import soon


async def test_each_step_is_a_token_for_each_that_runs() -> None:
    hand = Hand()
    engine = Paced(slots=2, complete=hand)
    answers = [engine.generate(Request(prompt="p", max_tokens=3)) for _ in range(3)]
    async with asyncio.TaskGroup() as group:
        first, second, third = [group.create_task(_next(answer)) for answer in answers]
        await asyncio.sleep(0)  # all three have asked
        hand.allow(1)
        assert await first == await second == Piece("w00000 ", usage=Usage(1, 1))
        assert (engine.running, engine.waiting, third.done()) == (2, 1, False)
        await answers[0].aclose()
        hand.allow(1)
        assert await third == await first
    assert engine.steps == 2
    hand.end()
    await engine.close()


async def _next(answer: Answer) -> Piece | Done:
    return await soon(anext(answer))


async def test_an_answer_is_as_long_as_asked_and_says_so() -> None:
    engine = Paced(slots=1, complete=every(0.001))
    items = [item async for item in engine.generate(Request(prompt="a b", max_tokens=17))]
    assert [item.text for item in items if isinstance(item, Piece)][-2:] == ["w00015\n", "w00016 "]
    assert items[-1] == Done("length", Usage(2, 17))
    assert (engine.running, engine.waiting) == (0, 0)
    await engine.close()


def test_late_steps_are_not_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = [100.0], []
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr("time.sleep", sleep)
    complete = every(10)
    assert complete()
    now[0] += 4  # read in time: the next is due as if nothing had happened
    assert complete()
    now[0] += 35  # more than a step late: that one is complete, and none beside it
    assert complete()
    assert complete()
    assert slept == pytest.approx([10, 6, 0, 10])


def test_the_table_judges_the_share_and_the_slots() -> None:
    plan = Plan()
    looks = {ENGINE: 2560.0, CONTRACT: 2550.0, BOTH: 2500.0}
    findings = Findings({name: [Look(rate, 0.025, 64)] for name, rate in looks.items()}, [0.9, 1.1])
    shown = table(findings, plan)
    assert "97.66%, target 97%" in shown
    assert shown.count(" ok") == 2
    assert shown.endswith("every answer was right")
    findings.looks[BOTH] = [Look(2400.0, 0.025, 64)]
    findings.freed.append(2.1)
    findings.failures.append("cut")
    shown = table(findings, plan)
    assert shown.count("MISSED") == 2
    assert shown.endswith("1 answers were wrong")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the bench reads CPU from /proc")
def test_the_whole_measurement_runs() -> None:
    plan = Plan(rounds=1, seconds=0.5, tokens=20, leavers=1)
    findings = measure(plan, lambda line: None)
    assert not findings.failures
    assert len(findings.freed) == 1
    assert all(look.complete >= plan.streams for looks in findings.looks.values() for look in looks)
