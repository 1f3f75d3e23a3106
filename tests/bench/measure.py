"""One run: baseline and gateway in turn, the same load on each, every figure noted under its name.

Rule: a figure of the gateway is only ever compared with one of the same round, because the machine's speed
changes from minute to minute. Knows nothing about targets or tables.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import sleep

from tests.bench.load import Question, Tally, Window, answers
from tests.bench.process import Server, run
from tests.bench.subjects import BASELINE, GATEWAY, mock_upstream, question, subject
from tests.bench.upstream import PACES, text

CONNECTIONS = 64
BURSTS = 32  # streams: enough for steady work, few enough that the core is not full
WARM = 0.3  # seconds of load before the look
RAMP = 1.0  # seconds until all streams run
TAIL = 0.5  # seconds that streams outlast the window
SETTLE = 0.3  # seconds a server is left alone before its idle memory is read


@dataclass(slots=True, frozen=True)
class Plan:
    """How long to look. Times are seconds; ``streams`` run side by side where the pace is to be kept."""

    rounds: int
    whole: float
    single: float
    burst: float
    paced: float
    endurance: float
    starts: int
    streams: int = 400


FULL = Plan(rounds=6, whole=1.2, single=0.6, burst=1.2, paced=2, endurance=60, starts=3)
QUICK = Plan(rounds=2, whole=0.5, single=0.3, burst=0.5, paced=0.5, endurance=2, starts=1)


@dataclass(slots=True)
class Findings:
    """``samples[figure][subject]``: one value a round, in seconds, bytes or counts."""

    samples: dict[str, dict[str, list[float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    failures: list[str] = field(default_factory=list)

    def note(self, figure: str, subject: str, value: float) -> None:
        self.samples[figure][subject].append(value)


@dataclass(slots=True, frozen=True)
class Look:
    """What a window of load brought and cost the server. Seconds of CPU, resident bytes."""

    tally: Tally
    cpu: float
    before: int
    during: int

    def per_event(self, events: int) -> float:
        """Seconds of CPU for one event of streams that have so many of them."""
        return self.cpu * len(text(events)) / events / max(self.tally.characters, 1)


def look(server: Server, asked: Question, connections: int, warm: float, seconds: float) -> Look:
    """Load the server and read its figures at both ends of the window."""
    cpu: list[float] = []
    resident = [server.resident()]

    def note() -> None:
        cpu.append(server.cpu())
        resident.append(server.resident())

    tally = run(answers(asked, connections, Window(warm, seconds, note, note)))
    return Look(tally, cpu[1] - cpu[0], resident[0], max(resident))


def measure(plan: Plan, say: Callable[[str], None]) -> Findings:
    """The whole run, some minutes long. ``say`` is told what is going on."""
    findings = Findings()
    with mock_upstream() as upstream:
        for _ in range(plan.starts):
            for name in (BASELINE, GATEWAY):
                _start(findings, name, upstream.port)
        with subject(BASELINE, upstream.port) as baseline, subject(GATEWAY, upstream.port) as gateway:
            servers = (upstream, baseline, gateway)
            _memory(findings, plan, servers[1:])
            for number in range(plan.rounds):
                say(f"round {number + 1} of {plan.rounds}")
                for figure in (_whole, _single, _short, _burst, _paced):
                    for server in servers if figure in (_single, _paced) else servers[1:]:
                        figure(findings, plan, server)
            say(f"{plan.streams} streams for {plan.endurance:.0f} s")
            _endurance(findings, plan, gateway)
            seen, _ = _paced_look(upstream, plan.streams, plan.paced)
            findings.note("endured_gap_p99", upstream.name, percentile(seen.tally.gaps, 0.99))
            for server in servers[1:]:
                findings.note("resident_after", server.name, server.resident())
    return findings


def _start(findings: Findings, name: str, upstream: int) -> None:
    with subject(name, upstream) as server:
        findings.note("ready", name, server.ready_after)
        sleep(SETTLE)
        findings.note("resident_idle", name, server.resident())


def _whole(findings: Findings, plan: Plan, server: Server) -> None:
    seen = _kept(findings, server, look(server, question(server), CONNECTIONS, WARM, plan.whole))
    findings.note("cpu_whole", server.name, seen.cpu / max(seen.tally.answers, 1))
    findings.note("busy_p50", server.name, percentile(seen.tally.latencies, 0.5))
    findings.note("busy_p99", server.name, percentile(seen.tally.latencies, 0.99))


def _single(findings: Findings, plan: Plan, server: Server) -> None:
    seen = _kept(findings, server, look(server, question(server), 1, WARM, plan.single))
    findings.note("single_p50", server.name, percentile(seen.tally.latencies, 0.5))
    findings.note("single_p99", server.name, percentile(seen.tally.latencies, 0.99))


def _short(findings: Findings, plan: Plan, server: Server) -> None:
    """Answers that are one burst each: the cost of a request shared by a hundred events."""
    events = PACES["short"].burst
    asked = question(server, "short", events, stop=True)
    seen = _kept(findings, server, look(server, asked, CONNECTIONS, WARM, plan.burst))
    findings.note("cpu_short", server.name, seen.per_event(events))


def _burst(findings: Findings, plan: Plan, server: Server) -> None:
    """Answers that last as long as the window: hardly any cost of requests."""
    events = _lasting("burst", WARM + plan.burst + TAIL)
    asked = question(server, "burst", events, stop=True)
    seen = _kept(findings, server, look(server, asked, BURSTS, WARM, plan.burst))
    findings.note("cpu_burst", server.name, seen.per_event(events))


def _lasting(pace: str, seconds: float) -> int:
    """Events of a stream that lasts so long."""
    return round(seconds / PACES[pace].interval) * PACES[pace].burst


def _paced_look(server: Server, streams: int, seconds: float) -> tuple[Look, int]:
    """Streams of which none begins or ends in the window, and how many events each has."""
    events = _lasting("paced", RAMP + seconds + TAIL)
    return look(server, question(server, "paced", events), streams, RAMP, seconds), events


def _paced(findings: Findings, plan: Plan, server: Server) -> None:
    seen, events = _paced_look(server, plan.streams, plan.paced)
    _kept(findings, server, seen)
    findings.note("cpu_paced", server.name, seen.per_event(events))
    findings.note("gap_p99", server.name, percentile(seen.tally.gaps, 0.99))


def _memory(findings: Findings, plan: Plan, servers: Iterable[Server]) -> None:
    """Of a server that answered before, but never so many at once: later rounds find memory it kept."""
    for server in servers:
        _kept(findings, server, look(server, question(server, "short", 100), 1, 0, 0.1))
        seen, _ = _paced_look(server, plan.streams, 1)
        _kept(findings, server, seen)
        findings.note("resident_stream", server.name, (seen.during - seen.before) / plan.streams)


def _endurance(findings: Findings, plan: Plan, server: Server) -> None:
    seen, _ = _paced_look(server, plan.streams, plan.endurance)
    _kept(findings, server, seen)
    findings.note("endured", server.name, seen.tally.intact / plan.streams)
    findings.note("endured_gap_p99", server.name, percentile(seen.tally.gaps, 0.99))


def _kept(findings: Findings, server: Server, seen: Look) -> Look:
    """The look, its failures taken down."""
    findings.failures += (f"{server.name}: {failure}" for failure in seen.tally.failures)
    return seen


def percentile(values: Iterable[float], share: float) -> float:
    """The value that so large a share is not above; 0 without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
