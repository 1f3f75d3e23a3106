"""Tables: columns of plain text for pipes, drawn ones for terminals.

Rule: a pipe gets every cell whole. A terminal that is too narrow first goes without the columns that can be
spared, and says so, then breaks long cells over several lines; nothing is cut. What draws is imported for
terminals alone, and what measures for text that is not ASCII. Knows nothing of what the cells say but for the
words that have a colour.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gateway.cli import show

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

GAP = 2  # characters between two columns
WORD = 32  # characters of one word that a column keeps together while others can be spared
LEAST = 8  # characters of a column

COLOURS: Mapping[str, str] = {
    "yes": "green", "ok": "green", "active": "green", "configured": "green",
    "NO": "bold red", "wrong": "bold red", "revoked": "red", "expired": "red",
    "disabled": "yellow", "inconclusive": "yellow", "not supported": "dim", "-": "dim",
}  # fmt: skip
"""Cells that are one of these words."""

Row = Sequence[str]


@dataclass(frozen=True, slots=True)
class Look:
    """How columns are shown, by their heads.

    ``right`` hold numbers; ``spare`` are left out of a narrow terminal, the first one first; ``total``: the
    last row is a sum of the others. ``empty`` is said in place of a drawn table without rows.
    """

    right: Collection[str] = ()
    spare: Sequence[str] = ()
    total: bool = False
    empty: str = ""


PLAIN = Look()


def table(head: Row, rows: Sequence[Row], look: Look = PLAIN) -> None:
    """Print ``rows`` under ``head`` on standard output."""
    if sys.stdout.isatty():
        _draw(head, rows, look)
        return
    widths = [max(map(_wide, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        cells = [
            _filled(cell, width, right=name in look.right)
            for name, cell, width in zip(head, row, widths, strict=True)
        ]
        print((" " * GAP).join(cells).rstrip())


def _filled(cell: str, width: int, *, right: bool) -> str:
    gap = " " * (width - _wide(cell))
    return gap + cell if right else cell + gap


def _wide(text: str) -> int:
    """Columns of a terminal that it takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def widths(head: Row, rows: Sequence[Row], spare: Sequence[str], room: int) -> dict[str, int]:
    """Characters for each column that is shown where there are ``room``.

    Each needs its longest word. Columns without any text need nothing, and are left out. Where even those
    that cannot be spared need too much, the widest gives way; what nobody needs goes to long cells.
    """
    columns = {name: column for name, *column in zip(head, *rows, strict=True) if any(column)}
    given = {name: _need(name, column) for name, column in columns.items()}
    left = list(spare)
    while _across(given) > room and left:
        given.pop(left.pop(0), None)
    while _across(given) > room and max(given.values()) > LEAST:
        given[max(given, key=given.__getitem__)] -= 1
    more = {name: max(map(_wide, (name, *columns[name]))) - given[name] for name in given}
    for name in sorted(given, key=more.__getitem__):
        given[name] += max(0, min(more[name], room - _across(given)))
    return given


def _need(name: str, column: Row) -> int:
    return max(_longest(name), *(min(_longest(cell), WORD) for cell in column))


def _longest(cell: str) -> int:
    return max(map(_wide, cell.split()), default=0)


def _across(given: Mapping[str, int]) -> int:
    return sum(given.values()) + GAP * (len(given) - 1)


def _draw(head: Row, rows: Sequence[Row], look: Look) -> None:
    console = show.console(sys.stdout)
    if not rows:
        console.print(look.empty or "none", style="dim")
        return
    shown = widths(head, rows, look.spare, console.width)
    console.print(_drawn(head, rows, look, shown))
    if gone := [name for name, *column in zip(head, *rows, strict=True) if name not in shown and any(column)]:
        _say_what_is_gone(console, gone)


def _say_what_is_gone(console: Console, gone: Sequence[str]) -> None:
    console.print(f"left out for want of room, --json has them: {', '.join(gone)}", style="dim")


def _drawn(head: Row, rows: Sequence[Row], look: Look, shown: Mapping[str, int]) -> Table:
    from rich import box
    from rich.table import Table

    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in head:
        if name in shown:
            side: Literal["left", "right"] = "right" if name in look.right else "left"
            drawn.add_column(name, justify=side, overflow="fold", width=shown[name])
    for number, row in enumerate(rows, 1):
        last = look.total and number == len(rows)
        if last and number > 1:
            drawn.add_section()
        cells = [_coloured(cell) for name, cell in zip(head, row, strict=True) if name in shown]
        drawn.add_row(*cells, style="bold" if last else None)
    return drawn


def _coloured(cell: str) -> Text:
    from rich.text import Text

    return Text(cell, style=COLOURS.get(cell, ""))
