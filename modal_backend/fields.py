"""Read a request of the prompt contract: bytes in, checked and frozen values out.

Rule: every field the contract knows is checked for type and bounds, and an error names it. Null means absent.
Fields that the contract or the engine does not know are not errors; they are named in ``ignored``.
Knows nothing about HTTP or what an engine does with a request.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

from modal_backend.engine import BadRequest, Request

MAX_STOPS = 64  # a client's 16 and as many boundary stops as any template has
MAX_STOP_LENGTH = 1024  # characters
MAX_INPUTS = 2048  # texts in one embedding request, as OpenAI's
MAX_IMAGES = 64
MAX_GUIDE = 1 << 18  # characters of a regex or grammar
MAX_NAME = 256  # characters of a request id or adapter name
MAX_IGNORED = 100  # names listed
MAX_IGNORED_NAME = 128  # characters of each

APP_HONOURS = frozenset({"prompt", "input", "stop", "stream", "echo", "request_id"})
"""Fields that the contract app takes care of, whatever the engine does."""

GUIDES = ("json_schema", "regex", "grammar")

Check: TypeAlias = Callable[[str, Any], Any]


@dataclass(frozen=True, slots=True)
class ToContinue:
    """A prompt to continue, and how the answer is wanted."""

    request: Request
    stream: bool = False
    echo: bool = False
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ToEmbed:
    """Texts to turn into vectors."""

    texts: tuple[str, ...]
    ignored: tuple[str, ...] = ()


def read(body: bytes, honours: frozenset[str]) -> ToContinue | ToEmbed:
    """The request in ``body``, for an engine that honours these fields; raises ``BadRequest``."""
    given = {name: value for name, value in _object(body).items() if value is not None}
    if "prompt" in given and "input" in given:
        raise BadRequest("give either `prompt` or `input`, not both")
    if "input" in given:
        texts = FIELDS["input"]("input", given["input"])
        return ToEmbed(texts, _ignored(name for name in given if name not in ("input", "request_id")))
    if "prompt" not in given:
        raise BadRequest("`prompt` is required: a string with the complete text to continue")
    known = {name: FIELDS[name](name, value) for name, value in given.items() if name in FIELDS}
    if len(guides := [name for name in GUIDES if name in known]) > 1:
        raise BadRequest(f"give at most one of {_list(GUIDES)}, not {_list(guides)}")
    stream, echo = known.pop("stream", False), known.pop("echo", False)
    obeyed = APP_HONOURS | honours
    return ToContinue(
        request=Request(**{name: value for name, value in known.items() if name in obeyed}),
        stream=stream,
        echo=echo,
        ignored=_ignored(name for name in given if name not in FIELDS or name not in obeyed),
    )


def _object(body: bytes) -> dict[str, Any]:
    try:
        text = body.decode()
    except UnicodeDecodeError as exc:
        raise BadRequest(f"the body is not UTF-8: byte {exc.start} cannot be decoded") from None
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_float)
    except json.JSONDecodeError as exc:
        where = f"line {exc.lineno} column {exc.colno} (character {exc.pos})"
        raise BadRequest(f"the body is not valid JSON: {exc.msg} at {where}") from None
    except ValueError:  # an integer with more digits than int() takes
        raise BadRequest("the body is not valid JSON: a number is too long") from None
    except RecursionError:
        raise BadRequest("the body is nested too deeply") from None
    if not isinstance(value, dict):
        raise BadRequest(f"the body must be a JSON object, not {_kind(value)}")
    return value


def _float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise BadRequest("the body is not valid JSON for this backend: a number is too large for a float")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise BadRequest(f"the body is not valid JSON: {name} is not a JSON value")


def _ignored(names: Iterable[str]) -> tuple[str, ...]:
    """A bounded list that can always be encoded, whatever names the caller chose."""
    return tuple(name[:MAX_IGNORED_NAME].encode(errors="replace").decode() for name in names)[:MAX_IGNORED]


_KINDS: Mapping[type, str] = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
}


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "null")


def _list(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


# --- one kind of check each; every one takes the field's name and its value, and gives back what is kept ---


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadRequest(f"`{name}` must be true or false, not {_kind(value)}")
    return value


def _integer(low: int, high: int) -> Check:
    def check(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise BadRequest(f"`{name}` must be an integer, not {_kind(value)}")
        if not low <= value <= high:
            raise BadRequest(f"`{name}` must be from {low} to {high}, not {_short(value)}")
        return value

    return check


def _number(low: float, high: float, *, above: bool = False) -> Check:
    """``above`` leaves ``low`` itself out."""

    def check(name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadRequest(f"`{name}` must be a number, not {_kind(value)}")
        if not low <= value <= high or (above and value == low):
            bounds = f"above {low:g} and at most {high:g}" if above else f"from {low:g} to {high:g}"
            raise BadRequest(f"`{name}` must be {bounds}, not {_short(value)}")
        return float(value)

    return check


def _short(value: float) -> str:
    return text if len(text := str(value)) <= 24 else "a number of that size"


def _text(longest: int | None = None) -> Check:
    def check(name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise BadRequest(f"`{name}` must be a string, not {_kind(value)}")
        if longest is not None and len(value) > longest:
            raise BadRequest(f"`{name}` must have at most {longest} characters, not {len(value)}")
        try:
            value.encode()
        except UnicodeEncodeError as exc:
            raise BadRequest(f"`{name}` holds half a surrogate pair at character {exc.start}") from None
        return value

    return check


def _array(item: Check, most: int) -> Check:
    def check(name: str, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise BadRequest(f"`{name}` must be an array, not {_kind(value)}")
        if len(value) > most:
            raise BadRequest(f"`{name}` takes at most {most} items, not {len(value)}")
        return tuple(item(f"{name}[{index}]", one) for index, one in enumerate(value))

    return check


def _object_field(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadRequest(f"`{name}` must be an object, not {_kind(value)}")
    return value


def _stop(name: str, value: Any) -> tuple[str, ...]:
    """A string alone is a list of one, as in OpenAI's API; empty strings stop nothing."""
    stops = _array(_text(MAX_STOP_LENGTH), MAX_STOPS)(name, [value] if isinstance(value, str) else value)
    return tuple(stop for stop in stops if stop)


def _bias(name: str, value: Any) -> Mapping[int, float]:
    bias: dict[int, float] = {}
    weigh = _number(-100, 100)
    for token, weight in _object_field(name, value).items():
        if not (token.isascii() and token.isdigit() and len(token) <= 10):
            raise BadRequest(f"`{name}` must have token ids as its keys")
        bias[int(token)] = weigh(f"{name}.{token}", weight)
    return bias


def _image(name: str, value: Any) -> str:
    text: str = _text()(name, value)
    if not text.startswith("data:"):
        raise BadRequest(f"`{name}` must be a data URL")
    return text


INT64 = 1 << 63

FIELDS: Mapping[str, Check] = {
    "prompt": _text(),
    "input": _array(_text(), MAX_INPUTS),
    "max_tokens": _integer(1, (1 << 31) - 1),
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "top_k": _integer(-1, (1 << 31) - 1),  # -1 and 0 turn it off
    "min_p": _number(0, 1),
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "repetition_penalty": _number(0, 100, above=True),
    "seed": _integer(-INT64, INT64 - 1),
    "logit_bias": _bias,
    "stop": _stop,
    "stop_token_ids": _array(_integer(0, (1 << 31) - 1), 256),
    "logprobs": _integer(0, 20),
    "json_schema": _object_field,
    "regex": _text(MAX_GUIDE),
    "grammar": _text(MAX_GUIDE),
    "images": _array(_image, MAX_IMAGES),
    "lora": _text(MAX_NAME),
    "stream": _boolean,
    "request_id": _text(MAX_NAME),
    "echo": _boolean,
}
"""Every field of the contract, and what it must be."""
