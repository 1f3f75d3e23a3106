"""Token ids back to text: LangChain's OpenAIEmbeddings sends the ids of OpenAI's table in place of texts.

Rule: nothing is guessed. Ids are those of the table ``cl100k_base``, unless the model's entry says that they
are its own tokenizer's; nothing is downloaded. A table that was found rather than named must be the real
one, byte for byte: it lies in a folder that others may write to.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from binascii import a2b_base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from gateway.core.errors import BadRequest
from gateway.tokens import load

Decode: TypeAlias = Callable[[Sequence[int]], str]
"""The text of these ids. Raises ``BadRequest``; may read a file, so it is called off the event loop."""

MAX_TABLE = 64 << 20  # bytes; the real one has 1.7 million
# tiktoken keeps the file under the SHA-1 of its address and checks this SHA-256 (tiktoken_ext.openai_public).
CACHED = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
DIGEST = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
SPECIAL: Mapping[int, bytes] = {
    100257: b"<|endoftext|>",
    100258: b"<|fim_prefix|>",
    100259: b"<|fim_middle|>",
    100260: b"<|fim_suffix|>",
    100276: b"<|endofprompt|>",
}


class Cl100k:
    """Decodes by the table in ``file``, or by the one that tiktoken keeps, once that is there."""

    def __init__(self, file: Path | None = None) -> None:
        """Raises ``ValueError`` if ``file`` is named and is no such table."""
        self._table: Mapping[int, bytes] | None = None
        if file is not None:
            self._table = table(_read(file))

    def __call__(self, ids: Sequence[int]) -> str:
        if self._table is None:
            self._table = _found()
        if self._table is None:
            raise _unknown_ids("the table cl100k_base is not on this machine")
        known = self._table
        try:
            return b"".join([known[each] for each in ids]).decode("utf-8", "replace")
        except KeyError as exc:
            raise _no_such(exc.args[0], "cl100k_base") from None


FOUND = Cl100k()
"""One for all models: the table takes some ten megabytes once it is read."""


def of_tokenizer(path: Path) -> Decode:
    """Decodes by the model's own tokenizer at ``path``. Raises ``ValueError`` as ``tokens.load`` does."""
    tokenizer = load(path)
    size = tokenizer.get_vocab_size()

    def decode(ids: Sequence[int]) -> str:
        if (largest := max(ids, default=0)) >= size:
            raise _no_such(largest, "this model's tokenizer")
        return str(tokenizer.decode(list(ids), skip_special_tokens=False))

    return decode


def table(data: bytes) -> dict[int, bytes]:
    """A table of tiktoken's: a line for each token, its bytes in base64 and its id. Raises ``ValueError``."""
    found = dict(SPECIAL)
    for number, line in enumerate(data.splitlines(), 1):
        try:
            token, rank = line.split()
            found[int(rank)] = a2b_base64(token, strict_mode=True)
        except ValueError:
            raise ValueError(f"line {number} is not a token in base64 and its id") from None
    if len(found) == len(SPECIAL):
        raise ValueError("it holds no tokens")
    return found


def _read(file: Path) -> bytes:
    try:
        if not file.is_file():  # nor a pipe, which would never end
            raise ValueError(f"there is no file {file}")
        if file.stat().st_size > MAX_TABLE:
            raise ValueError(f"{file} is larger than {MAX_TABLE} bytes")
        return file.read_bytes()
    except OSError as exc:
        raise ValueError(f"cannot read {file}: {exc.strerror}") from None


def _found() -> Mapping[int, bytes] | None:
    """The table where tiktoken keeps it, if it is there and is the one."""
    folder = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    try:
        data = _read(Path(folder or Path(tempfile.gettempdir()) / "data-gym-cache") / CACHED)
    except ValueError:
        return None
    return table(data) if hashlib.sha256(data).hexdigest() == DIGEST else None


def _no_such(each: int, where: str) -> BadRequest:
    return BadRequest(f"input: {each} is no token id of {where}.", param="input", code="invalid_value")


def _unknown_ids(why: str) -> BadRequest:
    return BadRequest(
        f"input: token ids cannot be read here ({why}). Send texts: OpenAIEmbeddings does so with "
        "check_embedding_ctx_length=False. Or set embedding_ids of this model to the table's path.",
        param="input",
        code="unsupported_content",
    )
