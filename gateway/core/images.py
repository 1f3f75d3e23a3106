"""Images in the messages of a chat: where they stand, and what may be sent to a container.

Rule: pure. A container gets data URLs of a few known kinds, so that it fetches nothing; base64 is checked by
its alphabet, and nothing is decoded. Knows nothing about templates, or how an address becomes a data URL.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from gateway.core.errors import BadRequest

KINDS = ("png", "jpeg", "webp", "gif")
MAX_IMAGES = 64  # of one request, as in the contract
_HEAD = re.compile(rf"data:image/({'|'.join(KINDS)}|jpg);base64,", re.IGNORECASE)
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_BEGINNINGS = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
)


class Place(NamedTuple):
    """An image's address, and where it stands: message, part, and how an error names that."""

    url: str
    message: int
    part: int
    where: str


def is_image(part: Any) -> bool:
    """Whether this part of a content is an image."""
    return isinstance(part, dict) and part.get("type") in ("image_url", "input_image")


def images(messages: Sequence[Mapping[str, Any]]) -> Iterator[Place]:
    """Every image, in order. Raises ``BadRequest`` for one without an address."""
    for index, message in enumerate(messages):
        content = message.get("content")
        if isinstance(content, list):
            for at, part in enumerate(content):
                if is_image(part):
                    where = f"messages[{index}].content[{at}].image_url"
                    yield Place(_address(part, where), index, at, where)


def _address(part: Mapping[str, Any], where: str) -> str:
    """FastChat's clients write the address alone, OpenAI's an object. ``detail`` is for other servers."""
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, dict) else image
    if not isinstance(url, str):
        raise BadRequest(
            f'{where} must be an object such as {{"url": "data:image/png;base64,..."}}.', param=where
        )
    return url


def data_urls(messages: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The images as they go to a container. Raises ``BadRequest`` for what is none that it could read."""
    found = list(images(messages))
    if len(found) > MAX_IMAGES:
        raise BadRequest(
            f"The messages have {len(found)} images; {MAX_IMAGES} are accepted.",
            param=found[MAX_IMAGES].where,
            code="invalid_value",
        )
    for place in found:
        if wrong := _wrong(place.url):
            raise BadRequest(f"{place.where}: {wrong}.", param=place.where, code="invalid_value")
    return tuple(place.url for place in found)


def _wrong(url: str) -> str | None:
    if url[:8].lower().startswith(("http://", "https://")):
        return "an address is fetched only while a request is served; send a data URL"
    head = _HEAD.match(url)
    if head is None:
        return f"must be a data URL in base64 of one of these types: {', '.join(KINDS)}"
    data = url[head.end() :]
    if not data.isascii() or len(data) % 4 or not data:
        return "is not valid base64"
    bare = data.encode()
    bare = bare[: len(bare) - bare[-2:].count(b"=")]
    return "is not valid base64" if bare.translate(None, _ALPHABET) else None


def kind_of(data: bytes) -> str | None:
    """What these bytes begin like: one of ``KINDS``, or None."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return next((kind for beginning, kind in _BEGINNINGS if data.startswith(beginning)), None)


def replaced(
    messages: Sequence[Mapping[str, Any]], urls: Mapping[tuple[int, int], str]
) -> list[Mapping[str, Any]]:
    """The messages with other addresses for the images at these places: numbers of message and part."""
    changed = [dict(message) for message in messages]
    for (index, at), url in urls.items():
        content = list(changed[index]["content"])
        content[at] = {"type": "image_url", "image_url": {"url": url}}
        changed[index]["content"] = content
    return list(changed)
