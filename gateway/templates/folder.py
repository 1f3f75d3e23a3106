"""A model's own template, from the files that came with it.

Read, as Hugging Face does: ``chat_template.jinja`` and ``additional_chat_templates/*.jinja``, else the
``chat_template`` of ``chat_template.json`` or ``tokenizer_config.json`` (a text, or a list of named ones of
which ``tool_use`` serves requests with tools); the named special tokens of ``tokenizer_config.json``, else of
``special_tokens_map.json``; the special tokens of ``added_tokens_decoder`` and of ``tokenizer.json``.

Rule: files are data. Nothing is downloaded, and nothing runs but the template, in its sandbox.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from gateway.core.template import Template, TemplateError, Tokens, compile_model

_NAMED: Final = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)


def read_model(path: Path) -> Template:
    """The template of a model folder, or of its ``tokenizer_config.json``. Raises ``TemplateError``."""
    folder, file = (path, path / "tokenizer_config.json") if path.is_dir() else (path.parent, path)
    config = _json(file)
    sources = _sources(folder, config)
    if not sources:
        raise TemplateError(f"{path.name} holds no chat_template: name a built-in template instead")
    if "default" not in sources:
        raise TemplateError(f"{path.name} has the chat templates {sorted(sources)}, but no 'default' one")
    tokens = _tokens(folder, config)
    return compile_model(folder.resolve().name, sources["default"], tokens, sources.get("tool_use"))


def read_text(file: Path) -> str:
    """The text of a file. Raises ``TemplateError``, which shows the file's name but not where it lies."""
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError:
        raise TemplateError(f"{file.name} is not UTF-8") from None
    except OSError as exc:
        raise TemplateError(f"{file.name} cannot be read: {exc.strerror}") from None


def _sources(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """The named templates; a single one is called ``default``."""
    found = dict(_named_sources(config.get("chat_template")))
    found |= dict(_named_sources(_json(folder / "chat_template.json").get("chat_template")))
    found |= {file.stem: read_text(file) for file in (folder / "additional_chat_templates").glob("*.jinja")}
    if (single := folder / "chat_template.jinja").is_file():
        found["default"] = read_text(single)
    return found


def _named_sources(given: Any) -> Iterator[tuple[str, str]]:
    if isinstance(given, str):
        yield "default", given
    elif isinstance(given, Mapping):
        yield from ((name, text) for name, text in given.items() if isinstance(text, str))
    elif isinstance(given, list):
        for item in given:
            if isinstance(item, Mapping) and isinstance(item.get("template"), str):
                yield str(item.get("name", "default")), item["template"]


def _tokens(folder: Path, config: Mapping[str, Any]) -> Tokens:
    named = {**_json(folder / "special_tokens_map.json"), **config}
    added = [
        *_items(config.get("added_tokens_decoder")),
        *_items(_json(folder / "tokenizer.json").get("added_tokens")),
    ]
    special = [_content(token) for token in added if isinstance(token, Mapping) and token.get("special")]
    for key in ("additional_special_tokens", "extra_special_tokens"):
        special += [_content(token) for token in _items(named.get(key))]
    return Tokens(
        {key: token for key in _NAMED if (token := _content(named.get(key)))},
        tuple(dict.fromkeys(filter(None, special))) if added else None,
    )


def _items(given: Any) -> list[Any]:
    """Tokens are listed as a list, or as the values of an object."""
    return list(given.values() if isinstance(given, Mapping) else given or ())


def _content(token: Any) -> str:
    """A token is a text, or an object with its text as ``content``."""
    text = token.get("content") if isinstance(token, Mapping) else token
    return text if isinstance(text, str) else ""


def _json(file: Path) -> dict[str, Any]:
    """The object in a file; empty if there is no such file."""
    if not file.is_file():
        return {}
    try:
        value = json.loads(read_text(file))
    except json.JSONDecodeError as exc:
        raise TemplateError(f"{file.name} is no JSON: line {exc.lineno}: {exc.msg}") from None
    if not isinstance(value, dict):
        raise TemplateError(f"{file.name} holds no JSON object")
    return value
