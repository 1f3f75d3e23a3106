"""The messages of a request in the form that templates take: contents as text, and images beside it.

Rule: pure. Where an image stood, its token stands; control strings in what the client wrote are defused
before that, so that nothing but an image makes one. Knows nothing about tools or prompts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from gateway.core.errors import BadRequest
from gateway.core.images import data_urls, is_image
from gateway.core.spec import ModelSpec
from gateway.core.structured import Format, instructed
from gateway.core.template import ImageToken, TemplateError, neutralise
from gateway.core.toolset import modern
from gateway.core.wire import ChatRequest, part_text, text_of

Message = Mapping[str, Any]

SYSTEM = ("system", "developer")


class Conversation(NamedTuple):
    """``images`` are data URLs, in the order of their tokens; ``neutralised``: control strings defused."""

    messages: Sequence[Message]
    neutralised: int = 0
    images: tuple[str, ...] = ()


def conversation(request: ChatRequest, spec: ModelSpec, form: Format | None) -> Conversation:
    """What is rendered. ``form``: JSON to ask the model for in words. Raises ``BadRequest``."""
    said: Sequence[Message] = request.messages
    seen = _images(said, spec)
    if form is not None:
        said = instructed(said, form, "user" if spec.template.ignores_system else "system")
    messages = [_plain(message, index, bool(seen)) for index, message in enumerate(said)]
    try:
        safe, count = neutralise(messages, spec.template, spec.control_tokens)
    except TemplateError as exc:
        raise BadRequest(str(exc), param="messages", code="control_tokens") from None
    if seen and spec.template.image is not None:
        safe = _pictured(safe, spec.template.image)
    if spec.system_default and not any(m["role"] in SYSTEM for m in request.messages):
        safe = _introduced(safe, spec.system_default)
    return Conversation(safe, count, seen)


def refuse_images(messages: Sequence[Message], spec: ModelSpec) -> None:
    """Raise ``BadRequest`` for the first image."""
    for index, message in enumerate(messages):
        content = message.get("content")
        found = map(is_image, content) if isinstance(content, list) else ()
        for at in (at for at, image in enumerate(found) if image):
            where = f"messages[{index}].content[{at}]"
            raise BadRequest(
                f"{where}: this model takes no images (models.{spec.name}.images is not set); send text.",
                param=f"{where}.type",
                code="unsupported_content",
            )


def _images(messages: Sequence[Message], spec: ModelSpec) -> tuple[str, ...]:
    """The images of these messages, which the model's prompts can show. Raises ``BadRequest``."""
    if list not in [type(message.get("content")) for message in messages]:
        return ()
    if not spec.images:
        refuse_images(messages, spec)
        return ()
    seen = data_urls(messages)
    if seen and spec.template.image is None:
        raise BadRequest(
            f"Nobody said what stands for an image in the prompts of this model: its template "
            f"{spec.template.name} has no token for images. Set models.{spec.name}.image_token.",
            param="messages",
            code="unsupported_content",
        )
    return seen


def _plain(message: Message, index: int, seen: bool) -> Message:
    """A message whose content is text (or, if there are images, parts), its call in today's form."""
    content = message.get("content")
    if type(content) is str and "function_call" not in message:
        return message
    where = f"messages[{index}]"
    whole = modern(message, where)
    if seen and isinstance(content, list) and any(map(is_image, content)):
        return {**whole, "content": list(_parts(content, f"{where}.content"))}
    return {**whole, "content": text_of(content, f"{where}.content")}


def _parts(content: Sequence[Any], where: str) -> Iterator[str | None]:
    """Texts, joined where no image is between them, and None for each image."""
    held: list[str] = []
    for at, part in enumerate(content):
        if not is_image(part):
            held.append(part_text(part, f"{where}[{at}]"))
            continue
        yield "".join(held)
        yield None
        held = []
    yield "".join(held)


def _pictured(messages: Sequence[Message], token: ImageToken) -> list[Message]:
    """Contents as text, with the token of each image in its place."""
    number = 0
    shown: list[Message] = []
    for message in messages:
        content = message["content"]
        if isinstance(content, list):
            said = []
            for part in content:
                number += part is None
                said.append(token.of(number) if part is None else part)
            message = {**message, "content": "".join(said)}
        shown.append(message)
    return shown


def _introduced(messages: Sequence[Message], default: str) -> Sequence[Message]:
    """With the model's own system message, before what the gateway may have put into one."""
    first = messages[0]
    if first["role"] != "system":
        return [{"role": "system", "content": default}, *messages]
    return [{**first, "content": f"{default}\n\n{first['content']}"}, *messages[1:]]
