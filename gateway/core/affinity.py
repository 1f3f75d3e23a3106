"""Which requests belong together, so that one container, with its cache, may take them all.

Rule: the same for every request of a conversation, different for other keys and models. What is sent is what
the client named itself, or a hash of key id, model and text: a guess can be checked with it, nothing be read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

from gateway.core.call import Sender
from gateway.core.wire import ChatRequest

MAX_TOLD = 1024  # characters of an image's address
_TOKEN = re.compile(r"[!-~]{1,128}")  # what a header carries as it stands


def sender(request: ChatRequest, model: str, key: str) -> Sender:
    """The requests of one conversation share a session, so that one container's cache serves them all."""
    given = request.model_extra.get("prompt_cache_key") if request.model_extra else None
    if not isinstance(given, str):
        told = _beginning(request.messages)
    elif _TOKEN.fullmatch(given):
        return Sender(key, given)
    else:
        told = given
    text = f"{len(key)} {key} {len(model)} {model} {told}".encode("utf-8", "surrogatepass")
    return Sender(key, blake2b(text, digest_size=16).hexdigest())  # OpenSSL's hashes take long to set up


def _beginning(messages: Sequence[Mapping[str, Any]]) -> str:
    """The system messages and the first of the user: what a conversation keeps as it grows."""
    said = []
    for message in messages:
        said.append(_told(message.get("content")))
        if message["role"] == "user":
            break
    return "\0".join(said)


def _told(content: Any) -> str:
    """Of images the beginnings: they are long, and one prompt has the same ones again and again."""
    if not isinstance(content, list):
        return str(content)
    return "\0".join(str(_brief(part)) for part in content)


def _brief(part: Any) -> Any:
    image = part.get("image_url") if isinstance(part, dict) else None
    url = image.get("url") if isinstance(image, dict) else image
    return url[:MAX_TOLD] if isinstance(url, str) else part
