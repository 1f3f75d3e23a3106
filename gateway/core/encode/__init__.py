"""From events to OpenAI's wire formats: one encoder a format, fed by the same events.

Rule: pure; ids and times are given. Every answer of one request shares one ``Head``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Head:
    """What all objects of one answer share.

    ``created`` is in Unix seconds; ``model`` is the name asked for.
    """

    id: str
    created: int
    model: str
