"""The filters of one choice, in their fixed order.

echo -> boundary stops (raw text, everywhere) -> the client's stops (visible text only)
Rule: a filter that has nothing to do is not in the pipeline.
"""

from __future__ import annotations

from gateway.core.call import Watch
from gateway.core.echo import Echo
from gateway.core.events import Filter
from gateway.core.stops import Stops


def filters(watch: Watch) -> list[Filter]:
    """Fresh filters for one choice. With nothing between them, both kinds of stops are one filter."""
    made: list[Filter] = []
    if watch.echo:
        made.append(Echo(watch.echo))
    if watch.boundary or watch.stops:
        made.append(Stops((*watch.boundary, *watch.stops)))
    return made
