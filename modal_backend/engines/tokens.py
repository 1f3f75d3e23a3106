"""Text to token ids and back, with a model's own tokenizer.

Rule: special tokens written in a prompt become special tokens, with exactly one beginning of sequence where
the model wants one. Text on its way out never cuts a character: what is still part of one is held back.
Knows nothing about models or requests.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from modal_backend.bos import needs_bos

UNKNOWN = "\ufffd"  # what decoders write for bytes that are not UTF-8, or not yet
WINDOW, KEPT = 16, 6  # tokens that are decoded together; spaces and byte pieces join over fewer


class Tokenizer:
    """A Hugging Face tokenizer, for one thread at a time to encode and any to decode."""

    def __init__(self, inner: Any, *, skip_special: bool = True) -> None:
        self.inner = inner
        self._skip = skip_special

    @cached_property
    def _first(self) -> list[int]:
        """What the tokenizer puts before a text by default: a BOS mostly, two tokens for ChatGLM."""
        whole: list[int] = self.inner("a")["input_ids"]
        plain = self.inner.encode("a", add_special_tokens=False)
        starts = (at for at in range(len(whole)) if whole[at : at + len(plain)] == plain)
        return whole[: next(starts, 0)]

    def encode(self, prompt: str) -> list[int]:
        ids: list[int] = self.inner.encode(prompt, add_special_tokens=False)
        first = self._first
        if ids[: len(first)] == first:
            return ids
        if len(first) == 1 and not needs_bos(prompt, self.inner.decode(first), added_by_default=True):
            return ids
        return [*first, *ids]

    def decode(self, ids: list[int]) -> str:
        text: str = self.inner.decode(
            ids, skip_special_tokens=self._skip, clean_up_tokenization_spaces=False
        )
        return text

    def token(self, token: int) -> tuple[str, bytes | None]:
        """A token's text, special ones too, and its bytes; None for part of a character that is not known."""
        text: str = self.inner.decode([token], clean_up_tokenization_spaces=False)
        if UNKNOWN not in text:
            return text, text.encode()
        piece = self.inner.convert_ids_to_tokens(token) or ""
        if all(char in _BYTES for char in piece):
            return text, bytes(_BYTES[char] for char in piece)
        if len(piece) == 6 and piece.startswith("<0x"):  # SentencePiece's byte pieces
            return text, bytes([int(piece[3:5], 16)])
        return text, None


def _byte_letters() -> dict[str, int]:
    """Byte-level BPE writes each byte as one printable letter; GPT-2's table, the other way round."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    return letters | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTES = _byte_letters()


class Spelling:
    """The text of one answer, token by token.

    Decodes a sliding window, because a token's text depends on its neighbours. Only the last character can
    still change, and only if the decoder could not read it.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._decode = tokenizer.decode
        self._window: list[int] = []
        self._given = 0  # characters of the window's text that are out

    def add(self, token: int) -> str:
        """What may go out now that ``token`` has come."""
        self._window.append(token)
        text = self._decode(self._window)
        ready = len(text) - text.endswith(UNKNOWN)
        new = text[self._given : ready]
        self._given = max(self._given, ready)
        if len(self._window) > WINDOW:
            self._window = self._window[-KEPT:]
            text = self._decode(self._window)
            self._given = len(text) - text.endswith(UNKNOWN)
        return new

    def end(self) -> str:
        """What was held back, now that no more will come."""
        return self._decode(self._window)[self._given :] if self._window else ""
