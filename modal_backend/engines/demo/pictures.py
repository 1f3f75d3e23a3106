"""What can be told of an image without seeing it: its type, how many pixels it has, how many bytes.

Rule: read from the first bytes of PNG, JPEG, GIF and WebP; of what begins otherwise the bytes alone are told.
Knows nothing about what it shows.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence

from modal_backend.engine import BadRequest

MARKS = ("<|vision_start|><|image_pad|><|vision_end|>", "<start_of_image>", "<|image|>", "<image>", "[IMG]")
"""What stands for an image in the prompts of common models."""

_MARK = re.compile(rf"(?:{'|'.join(map(re.escape, MARKS))}|<\|image_\d+\|>)\n?")
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # segments of a JPEG that begin with its size

Size = tuple[int, int]


def without_marks(text: str) -> str:
    """A question without what stands for its images."""
    return _MARK.sub("", text).strip()


def told(images: Sequence[str]) -> tuple[str, ...]:
    """A line for each of these data URLs: `PNG, 32 x 16, 70 bytes`. Raises ``BadRequest``."""
    return tuple(_told(at, url) for at, url in enumerate(images))


def _told(at: int, url: str) -> str:
    head, _, data = url.partition(",")
    try:
        if not head.endswith(";base64"):
            raise ValueError
        content = b64decode(data, validate=True)
    except ValueError:
        raise BadRequest(f"`images[{at}]` is no data URL in base64") from None
    length = f"{len(content)} byte{'s' if len(content) != 1 else ''}"
    for (beginning, kind), size in SIZES.items():
        if content.startswith(beginning) and (pixels := size(content)):
            return f"{kind}, {pixels[0]} x {pixels[1]}, {length}"
    return length


def _of_png(data: bytes) -> Size | None:
    return _pair(data[16:24], 4) if data[12:16] == b"IHDR" and len(data) >= 24 else None


def _of_gif(data: bytes) -> Size | None:
    return (int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")) if data[9:] else None


def _of_jpeg(data: bytes) -> Size | None:
    at = 2
    while data[at : at + 1] == b"\xff" and len(data) >= at + 9:
        if data[at + 1] in _FRAMES:
            height, width = _pair(data[at + 5 : at + 9], 2)
            return width, height
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None


def _of_webp(data: bytes) -> Size | None:
    match data[8:16]:
        case b"WEBPVP8X" if len(data) >= 30:
            return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
        case b"WEBPVP8L" if len(data) >= 25:
            bits = int.from_bytes(data[21:25], "little")
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case b"WEBPVP8 " if len(data) >= 30:
            low = [int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28)]
            return low[0], low[1]
    return None


def _pair(data: bytes, width: int) -> Size:
    return int.from_bytes(data[:width]), int.from_bytes(data[width:])


SIZES: Mapping[tuple[bytes, str], Callable[[bytes], Size | None]] = {
    (b"\x89PNG\r\n\x1a\n", "PNG"): _of_png,
    (b"GIF87a", "GIF"): _of_gif,
    (b"GIF89a", "GIF"): _of_gif,
    (b"\xff\xd8", "JPEG"): _of_jpeg,
    (b"RIFF", "WebP"): _of_webp,
}
"""How each type begins, and where it says its size."""
