"""The ledger: one row a request, which survives the process that serves it, and sums of them.

    ledger.py    what `serve` calls: begin, observe, spent
    rows.py      rows, and the lines that they are written in
    spool.py     the files of this process, written by the event loop;  owners.py  whose files are whose
    reading.py   reading them, and those of processes that are gone
    writer.py    the thread that brings rows into the database
    booking.py   one batch: rows and sums in one transaction
    queries.py   what was used;  ranges.py  spans of time
    pages.py     the same over HTTP

Rule: a request is in the spool before the first byte of its answer, and in the database exactly once.
Requests wait for the disk, never for the database. Knows no content unless it is to be kept.
"""

from gateway.ledger.ledger import Ledger, Spent
from gateway.ledger.rows import Idle, Intent

__all__ = ["Idle", "Intent", "Ledger", "Spent"]
