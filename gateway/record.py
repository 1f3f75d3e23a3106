"""One frozen line a request: what metrics, the log, the ledger and traces are all derived from.

Rule: made once, when the request is over, in the one ``finally`` of ``serve``. Holds no prompt and no answer.
Money is in billionths of a dollar and GPU time in nanoseconds, both whole numbers, so that sums are exact.
"""

from __future__ import annotations

from typing import NamedTuple

from gateway.core.events import Usage


class Record(NamedTuple):
    """Times are seconds of a monotonic clock; ``None`` means that it never came to that."""

    request_id: str
    route: str  # chat, render, ...
    key: str  # name of the API key, or "-" without auth
    asked: str  # the model name the client sent
    model: str  # the configured model, or "other"
    upstream: str  # its metric label, or "-"
    status: int  # HTTP status the client saw
    code: str | None  # error code, early or late
    streamed: bool
    started: float
    first_event: float | None
    finished: float
    usage: Usage | None
    finish: str | None  # stop | length | ... of the first choice
    state: str = "unknown"  # of the upstream, when the call came to it
    queued: float = 0.0  # seconds for a slot
    booted: float = 0.0  # seconds for a container that had to boot
    calls: int = 0  # upstream calls: 1, and what was tried again
    fallbacks: int = 0  # of these, calls to another model
    wanted: str = "other"  # the configured model that was asked for
    choices: int = 1  # answers side by side
    called: float = 0.0  # seconds in calls to upstreams, waiting included
    stop_matches: int = 0
    client_left: bool = False
    ignored: tuple[str, ...] = ()
    user: str | None = None
    time: float = 0.0  # when it came, seconds since 1970
    key_id: str = "-"
    team: str | None = None
    client_request_id: str | None = None  # as the client called it
    gpu: int | None = None  # nanoseconds of containers; None where nobody counts them
    gpu_source: str | None = None  # reported | estimated
    cost: int | None = None  # billionths of a dollar; None for a model without a price
