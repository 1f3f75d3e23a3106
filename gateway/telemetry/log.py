"""What the operator reads: one line for each request that failed on our side, derived from its record.

Rule: names, codes and times only; never a prompt, an answer, a key or a client's text, so a line cannot be
forged.
"""

from __future__ import annotations

import logging

from gateway.record import Record
from gateway.telemetry.lines import failed, waits

_LOGGER = logging.getLogger("gateway")


def observe(record: Record) -> None:
    """Log requests that ended in an upstream's or our own failure; clients' mistakes are theirs to read."""
    if failed(record):
        _LOGGER.warning(
            "%s model=%s upstream=%s status=%d code=%s%s after %.3f s",
            record.request_id,
            record.model,
            record.upstream,
            record.status,
            record.code,
            " ".join([" (in mid-stream)" if record.status == 200 else "", *waits(record)]),
            record.finished - record.started,
        )
