"""The filters of one choice, in their fixed order.

echo -> boundary stops (raw text, everywhere) -> reasoning -> calls of tools -> JSON -> the client's stops
(visible text only)
Rule: a filter that has nothing to do is not in the pipeline.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from itertools import count

from gateway.core.call import Call, Watch
from gateway.core.echo import Echo
from gateway.core.events import Filter, Finish
from gateway.core.reasoning import Thinking
from gateway.core.stops import Stops
from gateway.core.structured import Extract
from gateway.core.tools import DIALECTS


def filters(call: Call, index: int = 0) -> list[Filter]:
    """Fresh filters for choice ``index``. With nothing between them, both kinds of stops are one filter."""
    watch = call.watch
    made: list[Filter] = []
    if watch.echo:
        made.append(Echo(watch.echo))
    if watch.reasoning is None and watch.tooling is None and watch.json is None:
        if watch.boundary or watch.stops:
            made.append(Stops((*watch.boundary, *watch.stops)))
        return made
    if watch.boundary:
        made.append(Stops(watch.boundary))
    if watch.reasoning is not None:
        made.append(Thinking(*watch.reasoning))
    if watch.tooling is not None:
        dialect, tools, begin, single = watch.tooling
        made.append(DIALECTS[dialect].watch(tools, _ids(call.request_id, index), begin, single))
    if watch.json is not None:
        made.append(Extract(watch.json.opens))
    if watch.stops:
        made.append(Stops(watch.stops))
    return made


def complete(finish: Finish | None, watch: Watch) -> bool:
    """Whether an answer is all that its model had to say, and so can be judged.

    One that was cut, by a length, a filter or a stop of the client's, tells so itself; one that calls a tool
    is none yet.
    """
    if finish is None or finish.reason in CUT:
        return False
    return finish.stopped_by not in watch.stops or finish.stopped_by in watch.boundary


CUT = ("length", "content_filter", "tool_calls")


def _ids(request_id: str, index: int) -> Callable[[], str]:
    """Ids of calls that no other choice or request has, and that are the same when it is tried again."""
    numbers = count()

    def next_id() -> str:
        named = f"{request_id}/{index}/{next(numbers)}"
        return "call_" + blake2b(named.encode(), digest_size=12).hexdigest()

    return next_id
