"""Where the images of a chat stood in a request of another API, so that a refusal can name that place.

Rule: who translates a request leaves its place in each image part; it is taken out again before anybody else
sees the messages. Knows no API.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

AT = "at"  # the place in a part, as the client's API has it

Places: TypeAlias = Mapping[str, str]
"""Names of image parts and their addresses in the chat, and those of the client."""

NONE: Places = {}
_PART = re.compile(r"\bmessages\[\d+\]\.content\[\d+\](\.image_url)?")


def taken(messages: Sequence[Mapping[str, Any]], address: str) -> tuple[list[Mapping[str, Any]], Places]:
    """The messages without places, and the places. ``address``: the field that holds an image's address."""
    places: dict[str, str] = {}
    bare = []
    for index, message in enumerate(messages):
        content = message.get("content")
        if isinstance(content, list):
            for number, part in enumerate(content):
                if AT in part:
                    name = f"messages[{index}].content[{number}]"
                    places |= {name: part[AT], f"{name}.image_url": f"{part[AT]}.{address}"}
            content = [{key: part[key] for key in part if key != AT} for part in content]
            message = {**message, "content": content}
        bare.append(message)
    return bare, places


def hidden(text: str, places: Places) -> tuple[str, list[str]]:
    """The text with a mark for each place that is known, and what they stand for: see ``shown``."""
    found: list[str] = []

    def mark(match: re.Match[str]) -> str:
        if match[0] not in places:
            return match[0]
        found.append(places[match[0]])
        return f"\0{len(found) - 1}\0"

    return (_PART.sub(mark, text) if places else text), found


def shown(text: str, found: Sequence[str]) -> str:
    """The text with the client's names for the places."""
    for number, place in enumerate(found):
        text = text.replace(f"\0{number}\0", place)
    return text
