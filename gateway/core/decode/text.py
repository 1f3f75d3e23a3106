"""Bare text -> events. The end of the body is the end of the answer.

Rule: a character may be cut anywhere between two payloads; a byte that is no UTF-8 becomes U+FFFD; a body
that ends inside a character was cut.
"""

from __future__ import annotations

import codecs

from gateway.core.decode import fields
from gateway.core.errors import GatewayError
from gateway.core.events import Event, Finish, Text


class TextDecoder:
    """One answer in UTF-8; payloads are the body's bytes as they come. ``empty``: nothing is one too."""

    def __init__(self, empty: bool = True) -> None:
        self.failed: GatewayError | None = None
        self.said = False
        self.done = False
        self._empty = empty
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, payloads: list[bytes]) -> list[Event]:
        text = "".join([self._utf8.decode(payload) for payload in payloads])
        self._empty = self._empty or bool(text)
        return [Text(text)] if text else []

    def whole(self, body: bytes) -> list[Event]:
        return [*self.feed([body]), *self.end()]

    def end(self) -> list[Event]:
        if self._utf8.getstate()[0]:
            raise fields.cut("its text ended inside a character")
        if not self._empty:
            raise fields.cut("it was empty")
        return [Finish()]
