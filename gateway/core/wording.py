"""The names of one API's fields in what is said of another's: requests become chats, and refusals name those.

Rule: a table of patterns, each replaced wherever it occurs. Knows no API.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel

from gateway.core.errors import BadRequest
from gateway.core.places import NONE, Places, hidden, shown


def refuse(asked: BaseModel, elsewhere: Mapping[str, str], absent: Mapping[str, str]) -> None:
    """Raise ``BadRequest`` for a field that chats have and this API calls otherwise, or that nobody has here.

    ``elsewhere``: chat's names and this API's; ``absent``: names and why they are not taken.
    """
    for name, right in elsewhere.items():
        if getattr(asked, name, None) is not None:
            message = f"{name} is a field of chat completions; here it is {right}."
            raise BadRequest(message, param=name, code="unsupported_parameter")
    for name, why in absent.items():
        if getattr(asked, name, None):
            raise BadRequest(f"{name}: {why}.", param=name, code="unsupported_parameter")


@dataclass(slots=True, frozen=True)
class Wording:
    """``terms``: names of chat's fields and what this API calls them, tried in order."""

    terms: Sequence[tuple[re.Pattern[str], str]]

    def text(self, text: str, places: Places = NONE) -> str:
        """Names of chat's fields, at the start of a text or in it, as this API has them."""
        text, found = hidden(text, places)
        for pattern, name in self.terms:
            text = pattern.sub(name, text)
        return shown(text, found)

    def error(self, error: BadRequest, places: Places = NONE) -> BadRequest:
        """A refusal of the chat, said of the fields that the client sent; ``places``: where images stood."""
        return type(error)(
            self.text(error.message, places),
            code=error.code,
            param=error.param and self.text(error.param, places),
            headers=error.headers,
        )
