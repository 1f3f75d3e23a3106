"""How an answer of vectors is read, whichever kind of upstream gives it.

Rule: it is JSON in one piece; the kind says only where in it the vectors are.
"""

from __future__ import annotations

from gateway.core.call import EmbedCall
from gateway.core.decode.failure import Place
from gateway.core.decode.vectors import Key, VectorDecoder
from gateway.upstreams.framing import TEXT, unreadable
from gateway.upstreams.http import Chooser
from gateway.upstreams.reading import Reading


def reading(call: EmbedCall, key: Key, place: Place) -> Chooser:
    """For ``Calls.events``: how to read the answer to this call."""

    def choose(content_type: str) -> Reading:
        if content_type.endswith("json") or content_type in TEXT:
            return Reading(VectorDecoder(key, len(call.texts), place))
        raise unreadable(content_type, place)

    return choose
