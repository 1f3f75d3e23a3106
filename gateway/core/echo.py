"""Remove the copy of the prompt that some backends put before their answer.

Rule: one leading copy, exact, however it is cut; anything else is left alone. A backend that dropped special
tokens from the copy is recognised by giving that form as a further candidate.
Knows nothing about why a backend echoes.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.events import Batch, Event, Text, joined, split


class Echo:
    """A filter that swallows one leading copy of any of ``candidates``; of several that fit, the longest."""

    def __init__(self, candidates: Sequence[str]) -> None:
        self._alive = [candidate for candidate in set(candidates) if candidate]
        self._held: list[Text] = []  # pieces, joined once: a long copy in small pieces stays linear
        self._seen = 0  # characters in them
        self._done = False

    def feed(self, batch: Batch) -> Batch:
        if self._done:
            return batch
        out: list[Event] = []
        for position, event in enumerate(batch):
            if type(event) is Text and self._waits_for_more(event):
                continue
            self._decide(out)
            rest = batch[position:] if type(event) is not Text else batch[position + 1 :]
            return [*out, *rest]
        return out

    def _waits_for_more(self, event: Text) -> bool:
        """Hold this piece; true while a longer candidate may still come whole."""
        text, seen = event.text, self._seen
        self._alive = [c for c in self._alive if c.startswith(text, seen) or text.startswith(c[seen:])]
        self._held.append(event)
        self._seen += len(text)
        return bool(self._alive) and max(map(len, self._alive)) > self._seen

    def _decide(self, out: list[Event]) -> None:
        self._done = True
        if not self._held:
            return
        copies = [len(candidate) for candidate in self._alive if len(candidate) <= self._seen]
        rest = split(joined(self._held), max(copies))[1] if copies else None
        if rest is None:
            out.extend(self._held)
        elif rest.text:
            out.append(rest)
        self._held = []
