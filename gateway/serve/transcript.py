"""What an answer said, where the ledger keeps that: text, reasoning and calls of tools, as they are sent.

Rule: bounded; what exceeds the bound only makes the whole too large, which the ledger notes in its place.
Knows nothing about wire formats.
"""

from __future__ import annotations

from typing import Any

from gateway.core.events import Batch, Reasoning, Text, ToolArgs, ToolStart

KEPT = 300_000  # characters of one answer: more than the ledger takes


class Kept:
    """One answer, event by event."""

    __slots__ = ("_calls", "_reasoning", "_room", "_text")

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, tuple[str, list[str]]] = {}
        self._room = KEPT

    def take(self, batch: Batch) -> None:
        """Keep what the client is about to be sent."""
        for event in batch:
            if self._room <= 0:
                return
            if isinstance(event, Text):
                self._keep(self._text, event.text)
            elif isinstance(event, Reasoning):
                self._keep(self._reasoning, event.text)
            elif isinstance(event, ToolStart):
                self._calls.setdefault(event.index, (event.name, []))
                self._room -= len(event.name) + 1
            elif isinstance(event, ToolArgs) and event.index in self._calls:
                self._keep(self._calls[event.index][1], event.text)

    def answer(self) -> dict[str, Any]:
        """As plain data; only what there was."""
        calls = [{"name": name, "arguments": "".join(pieces)} for name, pieces in self._calls.values()]
        said = {"text": "".join(self._text), "reasoning": "".join(self._reasoning), "calls": calls}
        return {what: value for what, value in said.items() if value}

    def _keep(self, pieces: list[str], text: str) -> None:
        pieces.append(text)
        self._room -= len(text)
