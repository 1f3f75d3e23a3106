"""Exact token counts, for models whose tokenizer is configured.

Rule: loaded once at start, called per text; without a tokenizer the gateway estimates and says so.
The ``tokenizers`` library is heavy and optional: it is imported only where a model asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any


@cache  # for counting and for reading ids: some take a hundred megabytes
def load(path: Path) -> Any:
    """The tokenizer at ``path``, which is a tokenizer.json or a folder that holds one.

    Raises ``ValueError`` that says what is missing.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise ValueError("a tokenizer needs the extra: pip install 'modal-gateway[tokenizers]'") from None
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"there is no tokenizer.json at {path}")
    try:
        return Tokenizer.from_file(str(file))
    except Exception as exc:  # noqa: BLE001 - the library raises bare Exception for a file it cannot read
        raise ValueError(f"{file} is not a tokenizer.json: {exc}") from None


def counter(path: Path) -> Callable[[str], int]:
    """A function from text to its number of tokens, special tokens in the text counted as one each.

    Raises ``ValueError`` as ``load`` does.
    """
    tokenizer = load(path)
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
