"""What answers depend on beside the request.

Rule: whoever needs the time or something new is handed it from here, so that a test can hold every byte.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class World:
    """Tests pass in a fixed one."""

    time: Callable[[], float]  # seconds since 1970
    monotonic: Callable[[], float]  # seconds
    new_id: Callable[[], str]  # 24 or more hexadecimal digits
