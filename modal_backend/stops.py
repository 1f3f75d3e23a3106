"""End a text at the first stop string, however the text was cut into pieces.

Rule: stops are literal. The stop that completes first wins, a tie goes to the longest, and no character goes
out while it could still become part of a stop. Work and memory are linear in the text and in the stops.
Knows nothing about tokens, engines or who asked.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence


class StopCutter:
    """Feed it the text piece by piece; it gives back what may go out, until ``stopped`` is true.

    An automaton over all stops at once (Aho and Corasick, 1975): a state is the longest end of the text that
    begins some stop, so its depth is exactly what must be held back.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.stopped = False
        self._held = ""
        self._state = 0
        self._next: list[dict[str, int]] = [{}]
        self._fail = [0]
        self._depth = [0]
        self._ends = [0]  # length of the longest stop that ends in this state, 0 for none
        wanted = [stop for stop in stops if stop]
        for stop in wanted:
            self._add(stop)
        self._link()
        firsts = "".join(re.escape(char) for char in sorted({stop[0] for stop in wanted}))
        self._first = re.compile(f"[{firsts}]") if wanted else None

    def feed(self, text: str) -> str:
        """What of the text so far may go out now; empty once stopped."""
        if self.stopped:
            return ""
        if self._first is None:
            return text
        whole = self._held + text
        at, size = len(self._held), len(whole)
        while at < size:
            if self._state == 0:  # in text that begins no stop, C looks for one faster than this loop
                found = self._first.search(whole, at)
                if found is None:
                    break
                at = found.start()
            self._step(whole[at])
            at += 1
            if length := self._ends[self._state]:
                self.stopped, self._held = True, ""
                return whole[: at - length]
        safe = size - self._depth[self._state]
        self._held = whole[safe:]
        return whole[:safe]

    def end(self) -> str:
        """What was held back, now that no more text will come."""
        held, self._held = self._held, ""
        return held

    def _step(self, char: str) -> None:
        state = self._state
        while state and char not in self._next[state]:
            state = self._fail[state]
        self._state = self._next[state].get(char, 0)

    def _add(self, stop: str) -> None:
        state = 0
        for depth, char in enumerate(stop, 1):
            known = self._next[state].get(char)
            if known is None:
                known = len(self._next)
                self._next[state][char] = known
                self._next.append({})
                self._fail.append(0)
                self._depth.append(depth)
                self._ends.append(0)
            state = known
        self._ends[state] = len(stop)

    def _link(self) -> None:
        """Set, breadth first, where each state falls back to, and the stop that ends there unless a longer
        one does.
        """
        waiting = deque(self._next[0].values())
        while waiting:
            state = waiting.popleft()
            for char, child in self._next[state].items():
                back = self._fail[state]
                while back and char not in self._next[back]:
                    back = self._fail[back]
                self._fail[child] = self._next[back].get(char, 0)
                self._ends[child] = self._ends[child] or self._ends[self._fail[child]]
                waiting.append(child)
