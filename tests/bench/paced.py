"""What is left of an engine's tokens per second behind the contract app and the gateway.

    python -m tests.bench.paced [--quick] [--engine transformers] [--json FILE]

The engine of ``pacing.py`` makes a token for each of 64 streams every 25 ms; with ``--engine transformers``
the transformers engine does, on a model that only waits (needs torch). It is asked in its own process, over
the contract app, and over contract app and gateway, each server a process of its own; in turn, so that what
else the machine does meets all three. Then clients leave, while another waits for a slot.

Rule: every answer is checked to its last character, and each stream asks again as soon as it was answered, so
that beginnings and ends are measured as well. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import orjson

from tests.bench.figures import machine
from tests.bench.load import PATIENCE, Question, Window, answers
from tests.bench.measure import percentile
from tests.bench.pacing import SLOTS, STEP, WARM
from tests.bench.process import ENVIRONMENT, OTHERS, ROOT, TESTED, Server, run, started
from tests.bench.subjects import GATEWAY, UPSTREAM, gateway_command, question
from tests.bench.upstream import text
from tests.clients.process import free_port

ENGINE, CONTRACT = "engine", UPSTREAM
TITLES = {ENGINE: "the engine itself", CONTRACT: "contract app", GATEWAY: "contract app and gateway"}
SHORT = {CONTRACT: "container", GATEWAY: "gateway"}
PATH = "prompt"  # of the contract app, and the model's name in the gateway
TARGET = 0.97  # of the engine's own tokens per second
STEPS = 2  # until the slot of a client that left must be free
IN_FLIGHT = {"paced": 0, "transformers": 1}  # steps between a token's making and its reading
QUEUED = 4  # steps after which a request has reached the engine


@dataclass(slots=True, frozen=True)
class Plan:
    """``seconds`` of one look; ``tokens`` of one answer; ``leavers`` one after the other."""

    rounds: int = 3
    seconds: float = 20.0
    tokens: int = 200
    streams: int = SLOTS
    leavers: int = 20
    engine: str = "paced"


QUICK = Plan(rounds=1, seconds=3.0, tokens=80, leavers=5)


@dataclass(slots=True, frozen=True)
class Look:
    """``gap``: 99th percentile between two reads of one stream, in seconds; ``complete``: whole answers."""

    tokens_per_second: float
    gap: float
    complete: int
    cpu: dict[str, float] = field(default_factory=dict)  # seconds a second, by server


@dataclass(slots=True)
class Findings:
    looks: dict[str, list[Look]] = field(default_factory=lambda: {name: [] for name in TITLES})
    freed: list[float] = field(default_factory=list)  # steps
    failures: list[str] = field(default_factory=list)

    def rate(self, name: str) -> float:
        return median(look.tokens_per_second for look in self.looks[name])

    def share(self, name: str) -> float:
        """Of the engine's own rate."""
        return self.rate(name) / self.rate(ENGINE)


@contextmanager
def subjects(engine: str) -> Iterator[tuple[Server, Server]]:
    """The container and the gateway before it."""
    port, front = free_port(), free_port()
    command = ["-m", "tests.bench.pacing", engine, "serve", str(port)]
    with started(CONTRACT, command, port, TESTED) as container, TemporaryDirectory() as folder:
        served = gateway_command(Path(folder), port, front, models=(PATH,))
        with started(GATEWAY, served, front, OTHERS) as gateway:
            yield container, gateway


def measure(plan: Plan, say: Callable[[str], None]) -> Findings:
    """The whole run; ``say`` is told what is going on."""
    findings = Findings()
    with subjects(plan.engine) as servers:
        container, gateway = servers
        for number in range(plan.rounds):
            say(f"round {number + 1} of {plan.rounds}")
            findings.looks[ENGINE].append(_alone(plan))
            findings.looks[CONTRACT].append(_behind(findings, plan, container, servers[:1]))
            findings.looks[GATEWAY].append(_behind(findings, plan, gateway, servers))
        say("clients that leave")
        findings.freed = run(_leaving(question(gateway, PATH, 9999), plan))
    return findings


def _alone(plan: Plan) -> Look:
    command = [sys.executable, "-m", "tests.bench.pacing", plan.engine, "direct"]
    given = [str(each) for each in (plan.seconds, plan.streams, plan.tokens)]
    done = subprocess.run([*command, *given], cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, check=True)
    seen = json.loads(done.stdout)
    return Look(seen["tokens"] / plan.seconds, percentile(seen["gaps"], 0.99), seen["complete"])


def _behind(findings: Findings, plan: Plan, asked: Server, servers: Sequence[Server]) -> Look:
    used: list[dict[str, float]] = []

    def note() -> None:
        used.append({server.name: server.cpu() for server in servers})

    window = Window(WARM, plan.seconds, note, note)
    tally = run(answers(question(asked, PATH, plan.tokens), plan.streams, window))
    findings.failures += (f"{asked.name}: {failure}" for failure in tally.failures)
    tokens = tally.characters * plan.tokens / len(text(plan.tokens))
    cpu = {name: (used[1][name] - used[0][name]) / plan.seconds for name in used[0]}
    return Look(tokens / plan.seconds, percentile(tally.gaps, 0.99), tally.intact, cpu)


# --- clients that leave ---


async def _leaving(asked: Question, plan: Plan) -> list[float]:
    """Steps from a client's close to the first token of the one that waited for its slot."""
    freed = []
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        holding = [await _Held.open(asked, group) for _ in range(SLOTS)]
        for held in holding:
            await held.begun
        for number in range(plan.leavers):
            waiting = await _Held.open(asked, group)
            await asyncio.sleep((QUEUED + number / plan.leavers) * STEP)  # leaves at any point of a step
            left = time.perf_counter()
            holding.pop(0).leave()
            freed.append((await waiting.begun - left) / STEP)
            holding.append(waiting)
        for held in holding:
            held.leave()
    return freed


class _Held:
    """A stream that is read and thrown away; ``begun`` is when its first text came."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.begun: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    @classmethod
    async def open(cls, asked: Question, group: asyncio.TaskGroup) -> _Held:
        reader, writer = await asyncio.open_connection("127.0.0.1", asked.port)
        held = cls(writer)
        writer.write(asked.request)
        group.create_task(held._read(reader))
        return held

    async def _read(self, reader: asyncio.StreamReader) -> None:
        seen = b""
        while data := await reader.read(65536):
            if not self.begun.done():
                seen += data
                if b'"content":"w' in seen:
                    self.begun.set_result(time.perf_counter())

    def leave(self) -> None:
        self._writer.close()


# --- what is shown ---


def table(findings: Findings, plan: Plan) -> str:
    rows = [("asked", "tokens/s", "range", "of the engine's", "gap p99", "answers", "CPU", "")]
    for name, title in TITLES.items():
        looks = findings.looks[name]
        rates = [look.tokens_per_second for look in looks]
        share = findings.share(name)
        used = [f"{SHORT[server]} {value:.0%}" for server, value in looks[-1].cpu.items()]
        target = name == GATEWAY
        rows.append(
            (
                title,
                f"{median(rates):.1f}",
                f"{min(rates):.1f} to {max(rates):.1f}",
                f"{share:.2%}" + (f", target {TARGET:.0%}" if target else ""),
                f"{median(look.gap for look in looks) * 1000:.1f} ms",
                str(sum(look.complete for look in looks)),
                ", ".join(used),
                ("ok" if share >= TARGET else "MISSED") if target else "",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    said = ["", _slots(findings, plan), _answers(findings, plan)]
    return "\n".join([line.rstrip() for line in lines] + said)


def _slots(findings: Findings, plan: Plan) -> str:
    middle, most = median(findings.freed), max(findings.freed)
    limit = STEPS + IN_FLIGHT[plan.engine]
    verdict = "ok" if most <= limit else "MISSED"
    return (
        f"a client left, and the next had its slot and first token after {middle:.2f} steps "
        f"(most {most:.2f} of {len(findings.freed)}, target {limit}) {verdict}"
    )


def _answers(findings: Findings, plan: Plan) -> str:
    wrong = len(findings.failures)
    asked = f"{plan.streams} streams of {plan.tokens} tokens, {STEP * 1000:.0f} ms a step"
    ideal = f"{plan.streams / STEP:.0f} tokens/s without any loss"
    return f"{asked}, {ideal}; {f'{wrong} answers were wrong' if wrong else 'every answer was right'}"


def main() -> int:
    """1 if an answer was not what the engine said; a missed target is shown, not an exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.paced", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="half a minute instead of five, and less exact")
    parser.add_argument("--engine", choices=("paced", "transformers"), default="paced")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every look to FILE")
    arguments = parser.parse_args()
    plan = replace(QUICK if arguments.quick else Plan(), engine=arguments.engine)
    os.sched_setaffinity(0, {OTHERS})
    findings = measure(plan, lambda line: print(line, file=sys.stderr, flush=True))
    print(table(findings, plan))
    if arguments.json:
        found = {"machine": machine(), "plan": asdict(plan), **asdict(findings)}
        arguments.json.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))
    for failure in findings.failures[:10]:
        print(failure, file=sys.stderr)
    return 1 if findings.failures else 0


if __name__ == "__main__":
    sys.exit(main())
