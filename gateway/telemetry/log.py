"""What the operator reads: one line for each request that failed on our side, derived from its record.

Rule: names, codes and times only; never a prompt, an answer, a key or a client's text, so a line cannot be
forged.
"""

from __future__ import annotations

import logging

from gateway.record import Record

_LOGGER = logging.getLogger("gateway")


def observe(record: Record) -> None:
    """Log requests that ended in an upstream's or our own failure; clients' mistakes are theirs to read."""
    late = record.code is not None and record.status == 200
    if record.status >= 500 or late:
        _LOGGER.warning(
            "%s model=%s upstream=%s status=%d code=%s%s%s after %.3f s",
            record.request_id,
            record.model,
            record.upstream,
            record.status,
            record.code,
            " (in mid-stream)" if late else "",
            _waits(record),
            record.finished - record.started,
        )


def _waits(record: Record) -> str:
    """The upstream's state and what the request waited for, where that is out of the ordinary."""
    said = f" state={record.state}" if record.state not in ("warm", "unknown") else ""
    for name, seconds in (("queue", record.queued), ("boot", record.booted)):
        if seconds >= 0.001:
            said += f" {name}={seconds * 1000:.0f}ms"
    return said
