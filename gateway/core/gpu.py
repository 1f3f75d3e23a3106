"""How long containers ran, and for whom: GPU time in whole nanoseconds, shared out without a rest.

Rule: while calls run, what the containers take is shared evenly by these calls, booting included; once none
runs, the containers stay for their window, and that is shared by the keys that had kept them busy. The sum of
all shares is the integral of the number of containers, to the nanosecond. Of it counts what falls to calls
that reached a container: the share of any other is nobody's, and where no call of a busy time reached one,
nothing stays after it. The number is the platform's where it tells one, else as many as the calls need. Of
several workers each shares out its part of a number that was told, since none knows the calls of the others.
Pure: every method is given the time, in nanoseconds of one monotonic clock. Knows nothing about prices.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

SECOND = 1_000_000_000  # nanoseconds
COUNTED = 75 * SECOND  # for which a count of containers holds

Source: TypeAlias = Literal["reported", "estimated"]
"""Whether the platform told the number of containers all the while, and all of them are ours to share out."""


class Payer(NamedTuple):
    """Whose share it is."""

    key_id: str
    key: str
    team: str | None
    model: str


NOBODY = Payer("-", "-", None, "other")


class Tail(NamedTuple):
    """What containers took after a busy period, idle, and who pays for it."""

    gpu: int
    source: Source
    shares: tuple[tuple[Payer, int], ...]


@dataclass(slots=True)
class _Stay:
    """One call that runs. What it owes is what everybody owed since it came, and ``extra``."""

    payer: Payer
    since: int
    guesses: int
    extra: int = 0


class Meter:
    """One upstream's containers: ``inputs`` calls a container, at most ``most``, idle for ``window``.

    ``workers``: processes that are told of the same containers.
    """

    def __init__(self, inputs: int, most: int, window: int, workers: int = 1) -> None:
        self._workers = workers
        self._rest = 0  # what did not divide among the workers
        self._inputs = inputs
        self._most = most
        self._window = window
        self._at = 0  # everything before is shared out
        self._stays: dict[Hashable, _Stay] = {}  # the oldest first
        self._each = 0  # what a call would owe that had run since the beginning
        self._guesses = 0  # intervals in which the number of containers was not reported
        self._count = 0  # the number that was reported,
        self._until = -1  # and until when it holds
        self._busy: dict[Payer, int] = {}  # what each owes of this busy period
        self._idle = 0  # what the containers took since it ended,
        self._ends = 0  # when they will have stopped,
        self._last = 0  # how many they are,
        self._guessed = 0  # and the guesses before that
        self._tails: list[Tail] = []

    def enter(self, call: Hashable, payer: Payer, now: int) -> None:
        """A call begins to keep a container busy, be it that the container boots first."""
        now = self._advance(now)
        if self._busy and not self._stays and now > self._ends - self._window:
            self._close()
        self._stays[call] = _Stay(payer, self._each, self._guesses)

    def leave(self, call: Hashable, now: int, reached: bool = True) -> tuple[int, Source]:
        """The call is over; what it owes in nanoseconds, which is nothing if it ``reached`` no container."""
        now = self._advance(now)
        stay = self._stays.pop(call)
        if reached:
            owed = self._each - stay.since + stay.extra
            self._busy[stay.payer] = self._busy.get(stay.payer, 0) + owed
        else:
            owed = 0
        if not self._stays:
            self._idle, self._last, self._guessed = 0, 1, self._guesses  # all that the last call needed
            self._ends = now + self._window
        reported = self._guesses == stay.guesses and now <= self._until and self._workers == 1
        return owed, "reported" if reported else "estimated"

    def counted(self, containers: int, now: int) -> None:
        """The platform says how many containers run."""
        now = self._advance(now)
        self._count, self._until = containers, now + COUNTED

    def running(self, now: int) -> float:
        """Containers at this moment, as far as anybody knows; of several workers, this one's part of them."""
        if now <= self._until and (self._count or not self._stays):
            return self._count / self._workers
        if self._stays:
            return self._needed()
        return self._last if self._busy and now < self._ends else 0

    def closed(self, now: int, *, all: bool = False) -> list[Tail]:
        """The idle times that are over, each once; with ``all`` also one that still runs."""
        now = self._advance(now)
        if self._busy and not self._stays and (all or now >= self._ends):
            self._close()
        tails, self._tails = self._tails, []
        return tails

    def _advance(self, now: int) -> int:
        """Share out what was taken until ``now``; the time itself, or that of before if it went back."""
        if self._at < self._until < now:
            self._share(self._until)
        if now > self._at:
            self._share(now)
        return self._at

    def _share(self, to: int) -> None:
        took, self._at, began = to - self._at, to, self._at
        reported = to <= self._until
        if self._stays:
            reported = reported and self._count > 0  # none, while calls run, was seen before they came
            taken = self._ours(took) if reported else took * self._needed()
            part, rest = divmod(taken, len(self._stays))
            self._each += part
            if rest:
                next(iter(self._stays.values())).extra += rest
        elif self._busy and began < self._ends:
            took = min(took, self._ends - began)
            self._idle += self._ours(took) if reported else took * self._last
        self._guesses += not reported or self._workers > 1

    def _ours(self, took: int) -> int:
        """This worker's part of what the containers took that the platform told of."""
        part, self._rest = divmod(took * self._count + self._rest, self._workers)
        return part

    def _needed(self) -> int:
        """As many containers as the calls need that run."""
        return min(self._most, -(-len(self._stays) // self._inputs))

    def _close(self) -> None:
        """Share the idle time by what each kept busy; what does not divide goes to the first."""
        idle, busy, self._busy = self._idle, self._busy, {}
        if not idle:
            return
        total = sum(busy.values())
        shares = {payer: idle * owed // (total or 1) for payer, owed in busy.items()}
        shares[next(iter(shares))] += idle - sum(shares.values())
        source: Source = "reported" if self._guesses == self._guessed else "estimated"
        self._tails.append(Tail(idle, source, tuple((payer, gpu) for payer, gpu in shares.items() if gpu)))
