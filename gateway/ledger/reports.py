"""What was used, as people and programs read it: values for JSON, lines of CSV.

Rule: pure. GPU time is shown in seconds and money in dollars; single rows keep their whole numbers. A cell of
CSV is never a formula. Knows no database.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from gateway.ledger.ranges import iso, moment, usual

if TYPE_CHECKING:
    from gateway.ledger.queries import Asked, By, Line, Per

Priced: TypeAlias = Collection[str]
"""Names of the models that have a price."""

NUMBERS = ("requests", "errors", "prompt_tokens", "completion_tokens", "gpu_seconds", "dollars")
FORMULA = "=+-@\t\r"  # what a spreadsheet would take for one


def question(since: str | None, until: str | None, now: float, *whose: str | None) -> Asked:
    """Which rows are meant; ``whose``: key, team and model. Raises ``ValueError``, which names the option.

    Without ``since`` the last thirty days before ``until``.
    """
    from gateway.ledger.queries import Asked

    spans: list[int | None] = []
    for name, said in (("since", since), ("until", until)):
        try:
            spans.append(None if said is None else moment(said, now))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    for name, text in zip(("key", "team", "model"), whose, strict=False):
        if text and "\0" in text:
            raise ValueError(f"{name}: is no name")
    start, end = spans
    start = usual(end, now) if start is None else start
    if end is not None and start > end:
        raise ValueError(f"since: {since} is after until, {until}")
    return Asked(start, end, *whose)


def report(
    by: By, asked: Asked, lines: Sequence[Line], priced: Priced, per: Per | None = None
) -> dict[str, Any]:
    """Everything, with its total; with ``per``, each line says when its hour or day begins.

    Dollars are null where there are none and no model that it could be about is among ``priced``.
    """
    some = bool(priced) if asked.model is None else asked.model in priced

    def known(line: Line) -> bool:
        return line.id in priced if by == "model" else some

    return {
        "object": "usage",
        "by": by,
        **({} if per is None else {"per": per}),
        "since": iso(asked.since),
        "until": None if asked.until is None else iso(asked.until),
        "data": [{**_when(line), **_who(by, line), **_numbers([line], known(line))} for line in lines],
        "total": _numbers(lines, some),
    }


def sums_as_csv(told: Mapping[str, Any]) -> str:
    """The lines of a report."""
    by = told["by"]
    who = ("key", "key_id") if by == "key" else (by,)
    return as_csv(told["data"], head=(*(("start",) if "per" in told else ()), *who, *NUMBERS))


def as_csv(rows: Iterable[Mapping[str, Any]], *, head: Sequence[str] = ()) -> str:
    """Lines of CSV; those of ``head`` first, if there is one."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    if head:
        writer.writerow(head)
    writer.writerows([_cell(value) for value in row.values()] for row in rows)
    return text.getvalue()


def lines_of(rows: Iterable[Mapping[str, Any]]) -> str:
    """Lines of JSON, one a row."""
    return "".join(f"{orjson.dumps(row).decode()}\n" for row in rows)


def _when(line: Line) -> dict[str, str]:
    return {} if line.start is None else {"start": iso(line.start)}


def _who(by: By, line: Line) -> dict[str, Any]:
    if by == "key":
        return {"key": line.name, "key_id": line.id}
    return {by: line.name or None}


def _numbers(lines: Sequence[Line], priced: bool) -> dict[str, int | float | None]:
    def total(name: str) -> int:
        return sum(getattr(line, name) for line in lines)

    whole = {name: total(name) for name in NUMBERS[:4]}
    cost = total("cost")
    dollars = cost / 10**9 if cost or priced else None
    return {**whole, "gpu_seconds": total("gpu_ns") / 10**9, "dollars": dollars}


def _cell(value: Any) -> Any:
    if isinstance(value, str) and len(value) > 1 and value[0] in FORMULA:
        return f"'{value}"
    return value
