"""What a call brings to an upstream and meets there, and what that upstream takes: two values.

Rule: numbers only. ``Target`` acts on them. Times are in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.routing.lifecycle import State


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


@dataclass(slots=True)
class Visit:
    """One call's way to a container: how it may wait, and what it met. Times are seconds."""

    patient: bool = True  # wait for a container that boots; else fail at once
    wakes: bool = False  # being impatient, have one started, and ask for one where nothing is known
    state: State = "unknown"  # of the upstream when the call came
    queued: float = 0.0  # for a slot, at first and where the upstream was full
    booted: float = 0.0  # until a container took it, if one had to boot

    # The rest is the target's own.
    came: float = 0.0
    held: bool = False  # has a slot
    sent: float = 0.0  # when, the last time
    full: float | None = None  # when the upstream first had no room for it
    tries: bool = False  # is the trial of a circuit that was open
    answered: bool = False  # an event came
    failed: bool = False  # and then, or before, an error
    deadline: float = 0.0  # of the first event, by the loop's time; 0: only the upstream's own
