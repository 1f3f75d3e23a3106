"""What a call brings to an upstream and meets there, and what that upstream takes: two values.

Rule: numbers only. ``Target`` acts on them. Times are in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gateway.core.call import Call
from gateway.core.gpu import NOBODY, Payer, Source
from gateway.routing.lifecycle import State
from gateway.telemetry.trace import Trace


@dataclass(slots=True, frozen=True)
class Bounds:
    """``concurrency`` and ``queue`` count calls; times are seconds."""

    concurrency: int
    queue: int
    queue_timeout: float
    first_event: float = 600.0  # from the first refusal to the first event, waiting for a container included
    poll: float = 1.0  # between calls to an edge that has no container ready
    window: float = 60.0  # an idle container stays so long
    sleeps: bool = False  # containers that idle longer are known to be stopped
    room: int | None = None  # calls that all its containers take at once, if that is known
    refuses: bool = False  # its edge is known to refuse calls while no container is ready
    inputs: int | None = None  # calls one container takes at once; None: there are no containers
    containers: int = 1  # most that there are
    workers: int = 1  # processes that call the same containers


@dataclass(slots=True)
class Visit:
    """One call's way to a container: how it may wait, and what it met. Times are seconds."""

    patient: bool = True  # wait for a container that boots; else fail at once
    wakes: bool = False  # being impatient, have one started, and ask for one where nothing is known
    state: State = "unknown"  # of the upstream when the call came
    queued: float = 0.0  # for a slot, at first and where the upstream was full
    booted: float = 0.0  # until a container took it, if one had to boot
    priority: int = 0  # whose calls go first where the upstream is full
    payer: Payer = NOBODY
    gpu: int = 0  # nanoseconds of containers that are its share, once it is over
    gpu_source: Source = "reported"
    upstream: str = "-"  # its name
    span: str = ""  # the call's id in a trace; hexadecimal digits
    error: str | None = None  # the code it failed with
    ended: float = 0.0  # when; 0 until then

    # The rest is the target's own.
    came: float = 0.0  # when
    held: bool = False  # has a slot
    sent: float = 0.0  # when, the last time
    full: float | None = None  # when the upstream first had no room for it
    tries: bool = False  # is the trial of a circuit that was open
    answered: bool = False  # an event came
    failed: bool = False  # and then, or before, an error
    reached: bool = True  # a container may have run for it
    deadline: float = 0.0  # of the first event, by the loop's time; 0: only the upstream's own


def covered(visits: Sequence[Visit]) -> float:
    """Seconds in which any of these was under way."""
    if len(visits) == 1:
        return max(visits[0].ended - visits[0].came, 0.0)
    seconds = until = 0.0
    for visit in sorted(visits, key=lambda visit: visit.came):
        seconds += max(visit.ended - max(visit.came, until), 0.0)
        until = max(until, visit.ended)
    return seconds


def traced(trace: Trace, call: Call, visit: Visit) -> Call:
    """The call, with the place in the trace that its upstream is told."""
    visit.span, told = trace.call()
    return replace(call, sender=call.sender._replace(trace=told))
