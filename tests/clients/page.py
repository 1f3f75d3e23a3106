"""docs/clients.md as values: the table of clients, and each section's blocks with what they must print.

Rule: what the page shows is what runs; a block is never written down a second time. Knows nothing of how a
client is run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from tests.clients.process import ROOT

PAGE = ROOT / "docs" / "clients.md"
ADDRESS = "127.0.0.1:8000"  # where the page says that the gateway is

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_ROW = re.compile(r"^\| \[(.+?)\]\(#[\w-]+\) \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """``text`` is a program in the language ``kind``; ``shows`` is what it must print, if the page says."""

    kind: str
    text: str
    shows: str | None


@dataclass(frozen=True)
class Row:
    """One line of the table: the variables with the address, where the client asks, and how long it waits."""

    variables: tuple[str, ...]
    asks: str
    waits: str


@cache
def sections() -> dict[str, tuple[Block, ...]]:
    """The programs below each heading, in their order."""
    _, *parts = re.split(r"^## (.+)\n", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {name: _blocks(text) for name, text in zip(parts[::2], parts[1::2], strict=True)}


@cache
def rows() -> dict[str, Row]:
    """The table, by client."""
    found = _ROW.findall(PAGE.read_text(encoding="utf-8"))
    return {
        name: Row(tuple(re.findall(r"`(\w+)`", variables)), asks.strip("`"), waits)
        for name, variables, asks, waits in found
    }


def shown(title: str) -> tuple[str, str]:
    """The one program of a section, and what it prints."""
    [(program, output)] = [(each.text, each.shows) for each in sections()[title] if each.shows is not None]
    return program, output


def _blocks(text: str) -> tuple[Block, ...]:
    found: list[Block] = []
    for match in _FENCE.finditer(text):
        if match[1] in ("text", "json"):
            found[-1] = Block(found[-1].kind, found[-1].text, match[2])
        else:
            found.append(Block(match[1], match[2], None))
    return tuple(found)
