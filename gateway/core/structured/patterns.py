"""What a client's regular expressions may cost.

Rule: a pattern runs in linear time, or with few backtracks where it needs look-around or back-references, as
pydantic's pattern for decimals does. What one character can cost is told by the size it compiles to.
Knows nothing about where patterns stand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from gateway.core.structured.limits import refused

MAX_PATTERNS = 64
MAX_LENGTH = 1000  # characters of one pattern
MAX_SIZE = 4 << 20  # bytes of all compiled patterns
BACKTRACKS = 1000
# Bytes that a pattern compiles to, and the nanoseconds that the worst such pattern took for a character.
WEIGHTS = {1 << 14: 50, 1 << 16: 100, 1 << 18: 8000, 1 << 19: 12_000, 1 << 20: 20_000}
LOOKING = (1 << 18, 2500)  # the same with look-around or back-references


@cache
def library() -> Any:
    """The validator, imported with the first schema: 25 ms and 10 MiB that most processes never need."""
    import jsonschema_rs

    return jsonschema_rs


def engine() -> Any:
    """Hands every plain pattern to the linear engine, and backtracks within bounds for the others."""
    largest = max(WEIGHTS)
    return library().FancyRegexOptions(BACKTRACKS, largest, largest >> 2)


@dataclass(slots=True)
class Patterns:
    """The patterns of one schema, each weighed once."""

    _weights: dict[str, int] = field(default_factory=dict)
    _size: int = 0

    def weigh(self, pattern: str) -> int:
        """Nanoseconds that a character may cost. Raises ``BadRequest`` beyond the bounds."""
        if pattern in self._weights:
            return self._weights[pattern]
        if len(self._weights) == MAX_PATTERNS:
            raise refused(f"it has more than {MAX_PATTERNS} patterns")
        if len(pattern) > MAX_LENGTH:
            raise refused(f"a pattern is longer than {MAX_LENGTH} characters")
        size, scan = _weight(pattern)
        self._size += size
        if self._size > MAX_SIZE:
            raise refused("its patterns together are too large; use minLength and maxLength for lengths")
        self._weights[pattern] = scan
        return scan


def _weight(pattern: str) -> tuple[int, int]:
    """Bytes and nanoseconds a character, by the smallest engine that takes the pattern."""
    rs = library()
    for size, scan in WEIGHTS.items():
        if _compiles(pattern, rs.RegexOptions(size, size)):
            return size, scan
    if _compiles(pattern, rs.FancyRegexOptions(BACKTRACKS, LOOKING[0], LOOKING[0])):
        return LOOKING
    raise refused(f"the pattern {pattern[:80]!r} is no regular expression, or compiles to too much")


def _compiles(pattern: str, options: Any) -> bool:
    rs = library()
    try:
        rs.Draft202012Validator({"pattern": pattern}, pattern_options=options)
    except (rs.ValidationError, ValueError):
        return False
    return True
