"""What every request may need, made once at start.

Rule: the fields that a new configuration changes are replaced together, between two steps of the event loop;
a request goes on with what it found. Knows nothing about one request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gateway.auth import Keys
from gateway.keys.running import Running
from gateway.record import Record
from gateway.routing.routes import Routes
from gateway.serve.books import Books
from gateway.serve.images import Images
from gateway.serve.job import Job
from gateway.settings import Model, Server
from gateway.telemetry.trace import Trace, passed_on
from gateway.world import World


@dataclass(slots=True)
class Service:
    """``began`` and ``observe`` hear of every request that calls a model, at its beginning and its end."""

    limits: Server
    keys: Keys
    routes: Routes
    world: World
    began: Callable[[], None]
    observe: tuple[Callable[[Record], None], ...]
    books: Books
    models: Mapping[str, Model] = field(default_factory=dict)  # their entries in the configuration
    images: Images = field(default_factory=Images)
    running: Running = field(default_factory=Running)
    answering: set[str] = field(default_factory=set)  # ids of the requests that are being answered
    streams: int = 0  # of these, those that answer as a stream
    trace: Callable[[Mapping[bytes, bytes]], Trace | None] = passed_on  # of the request with these headers
    traced: Callable[[Record, Job], None] | None = None  # hears of each one's end, if it has a trace
    keeps: bool = False  # whether answers are kept until then
