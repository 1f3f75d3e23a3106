"""How long a client may be kept without a sign of life, and when it gets one.

Rule: numbers from what clients were measured to stand. The SDKs of OpenAI say how long they read without
a byte; of others the least is assumed: 55 s. Streams are told by comments, which LangChain's async client
does not count, so an empty chunk follows now and then; whole answers by white space in front of the JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

READ_TIMEOUT = b"x-stainless-read-timeout"  # seconds, sent by OpenAI's SDKs and what is built on them
ASSUMED = 55.0  # seconds, where a client does not say: LlamaIndex gives up after 60
SHORTEST = 0.2  # seconds assumed at least: nobody is served by a sign of life every few microseconds
LONGEST = 60.0  # seconds assumed at most: something between may be less patient than the client
PING = 10.0  # seconds without a byte
PAUSE = 45.0  # seconds without a chunk: LangChain's async client gives up after 120


@dataclass(slots=True, frozen=True)
class Rhythm:
    """Seconds until headers go out without an event, of silence before a filler, before an empty chunk."""

    grace: float
    ping: float = PING
    pause: float = PAUSE


def patience(head: Mapping[bytes, bytes]) -> float:
    """Seconds that this client waits for a byte."""
    text = head.get(READ_TIMEOUT)
    if text is None:
        return ASSUMED
    try:
        told = float(text)
    except ValueError:
        return ASSUMED
    return max(min(told, LONGEST), SHORTEST) if told > 0 else ASSUMED  # also for nan


def hold(patience: float) -> float:
    """Seconds that the headers of an answer may be held back, so that a failure can still be a status."""
    return max(patience / 2, patience - PING)


@lru_cache(maxsize=64)
def for_stream(patience: float, grace: float) -> Rhythm:
    return Rhythm(min(grace, hold(patience)), min(PING, patience / 2))


@lru_cache(maxsize=64)
def for_whole(patience: float) -> Rhythm:
    return Rhythm(hold(patience), min(PING, patience / 2))
