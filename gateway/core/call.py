"""What we ask an upstream: a prompt, or a chat, with everything the gateway will do to the answer.

Rule: frozen, complete before any socket is opened, and the same for every attempt (a retry sends it again).
Knows nothing about URLs, HTTP, or how an upstream names its fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from gateway.core.value import value

if TYPE_CHECKING:
    from gateway.core.structured import Format


@dataclass(slots=True, frozen=True)
class Traits:
    """What ``plan`` must know of an upstream; each kind's config gives it."""

    speaks: Literal["prompt", "chat"]
    streams: bool = True  # can be asked for a stream
    whole: Literal["auto", "stream", "plain"] = "auto"  # how a whole answer is asked for
    echo: Literal["auto", "always", "never"] = "never"  # when a leading copy of the prompt is removed
    forward: frozenset[str] | Literal["all"] = frozenset()  # unknown client fields that are passed on
    embeds: bool = True  # can be asked for the vectors of texts


class Marks(NamedTuple):
    """What a model puts around its reasoning; ``starts_open``: its answer begins inside."""

    start: str = "<think>"
    end: str = "</think>"
    starts_open: bool = False


class Tooling(NamedTuple):
    """Calls of tools to be found in the text: the dialect's name, and the tools as OpenAI defines them."""

    dialect: str
    tools: tuple[Mapping[str, Any], ...]
    begin: str = ""  # the opening of a call that the prompt ends with, so that one must follow
    single: bool = False  # the answer ends behind the first call


@value
class Watch:
    """What the gateway looks for in the text that comes back, in the order of the filters."""

    echo: tuple[str, ...] = ()  # texts of which one leading copy is removed
    boundary: tuple[str, ...] = ()  # the template's stops: end the raw text anywhere
    reasoning: Marks | None = None
    tooling: Tooling | None = None
    json: Format | None = None  # JSON to be found in the text, and judged at its end
    guaranteed: bool = False  # JSON that the backend is held to while it decodes
    stops: tuple[str, ...] = ()  # the client's stops: end the visible text


MAX_NOTED = 20  # names in the header x-gateway-ignored
_NOTABLE = re.compile(r"[\w.-]{1,64}", re.ASCII)


def notable(names: Iterable[str]) -> tuple[str, ...]:
    """Those names that a header can carry: they come from clients and upstreams."""
    return tuple(name for name in names if _NOTABLE.fullmatch(name))


@value
class Notes:
    """What the client is told about its request in headers."""

    ignored: tuple[str, ...] = ()  # parameters that had no effect
    neutralised: int = 0  # control strings defused in user text


class Sender(NamedTuple):
    """On whose behalf a call is made, for fairness, affinity and traces; no upstream learns the key."""

    key: str = ""  # the API key's name
    session: str | None = None  # equal for calls that one container should take
    trace: tuple[str, str] | None = None  # the headers traceparent and tracestate


NOBODY = Sender()


@value
class PromptCall:
    """For upstreams that speak the prompt contract.

    ``arguments`` holds only what the client or the model's defaults set, under the contract's names
    (``max_tokens``, ``temperature``, ``stop``, ...); ``unknown`` the client's fields to pass on.
    """

    prompt: str
    arguments: Mapping[str, Any]
    unknown: Mapping[str, Any] = field(default_factory=dict)
    stream: bool = False  # ask the upstream for a stream
    request_id: str = ""
    sender: Sender = NOBODY
    watch: Watch = Watch()
    notes: Notes = Notes()
    choice: int = 0  # which of the answers to one prompt


@value
class ChatCall:
    """For upstreams that speak OpenAI's chat API; ``body`` lacks ``model``, ``stream`` and ``n``."""

    body: Mapping[str, Any]
    stream: bool = False
    request_id: str = ""
    sender: Sender = NOBODY
    watch: Watch = Watch()
    notes: Notes = Notes()
    choice: int = 0  # which of the answers to one prompt


@value
class EmbedCall:
    """Texts whose vectors are wanted; ``fields`` go beside them as they are.

    The answer is one ``Vectors`` and the ``Finish``; it is never a stream.
    """

    texts: tuple[str, ...]
    fields: Mapping[str, Any] = field(default_factory=dict)
    stream: bool = False
    request_id: str = ""
    sender: Sender = NOBODY
    watch: Watch = Watch()
    notes: Notes = Notes()
    choice: int = 0  # which of the answers to one prompt


Call: TypeAlias = PromptCall | ChatCall | EmbedCall


def for_choices(call: Call, n: int) -> tuple[Call, ...]:
    """The calls of an ``n``-fold request."""
    if n == 1:
        return (call,)
    return tuple(for_choice(call, index) for index in range(n))


def for_choice(call: Call, index: int) -> Call:
    """The call for choice ``index`` of an ``n > 1`` request:

    a seed moves on by one each, so choices differ.
    """
    if index == 0 or isinstance(call, EmbedCall):
        return call
    if isinstance(call, PromptCall):
        return replace(call, arguments=_reseeded(call.arguments, index), choice=index)
    return replace(call, body=_reseeded(call.body, index), choice=index)


def _reseeded(fields: Mapping[str, Any], index: int) -> Mapping[str, Any]:
    return {**fields, "seed": fields["seed"] + index} if fields.get("seed") is not None else fields
