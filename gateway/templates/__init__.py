"""The door to every chat template: by name, by file, or from a model's own folder.

    NAME.jinja   one template: its data in TOML, then its text; a new file here is a new template
    families/    bodies that several templates share; each of those gives values only
    folder.py    a model folder, or its tokenizer_config.json

Rule: names are found in any case, with `_` or `-`; what is not found is an error that names the nearest.
Built-in templates are read as package data and kept; a file or folder is read anew by each call, so that a
reload of the configuration sees it.
"""

from __future__ import annotations

import difflib
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from gateway.core.template import Template, TemplateError, compile_template, split
from gateway.templates.folder import read_model, read_text

_SUFFIX: Final = ".jinja"


def load(name: str, base: Path | None = None) -> Template:
    """The template of this name, ``.jinja`` file, model folder or ``tokenizer_config.json``.

    ``base`` is where a relative path starts (the folder of the configuration). The name of a repository finds
    the template of its last part: ``THUDM/chatglm2-6b``. Raises ``TemplateError``.
    """
    if (known := _index().get(_key(name))) is not None:
        return _built_in(known)
    path = (base or Path()) / name
    if path.is_dir() or (path.is_file() and path.suffix == ".json"):
        return read_model(path)
    if path.is_file():
        return _compiled(path.stem, read_text(path))
    if (known := _index().get(_key(name.rpartition("/")[2]))) is not None:
        return _built_in(known)
    raise TemplateError(f"there is no template {name!r}: {_hint(name)}")


def names() -> tuple[str, ...]:
    """The names of the built-in templates, sorted."""
    return tuple(sorted(set(_index().values()), key=str.casefold))


def _key(name: str) -> str:
    return name.casefold().replace("_", "-")


def _folder() -> Traversable:
    return files("gateway.templates")


@cache
def _index() -> dict[str, str]:
    """Every name and alias, as it is looked up -> the name of its file. None is used twice: a test looks."""
    index: dict[str, str] = {}
    for entry in _folder().iterdir():
        if entry.name.endswith(_SUFFIX):
            name = entry.name.removesuffix(_SUFFIX)
            data, _ = split(entry.read_text("utf-8"))
            for known in (name, *(data or {}).get("aliases", ())):
                index[_key(known)] = name
    return index


@cache
def _built_in(name: str) -> Template:
    return _compiled(name, _folder().joinpath(name + _SUFFIX).read_text("utf-8"))


def _compiled(name: str, source: str) -> Template:
    data, _ = split(source)
    family = (data or {}).get("family")
    if family is None:
        return compile_template(name, source)
    known = {entry.name.removesuffix(_SUFFIX): entry for entry in _folder().joinpath("families").iterdir()}
    if family not in known:
        raise TemplateError(f"there is no family {family!r}, only {sorted(known)}")
    return compile_template(name, source, known[family].read_text("utf-8"))


def _hint(name: str) -> str:
    if Path(name).suffix in (_SUFFIX, ".json"):
        return "no such file"
    if near := difflib.get_close_matches(_key(name), _index(), n=3, cutoff=0.5):
        return f"the nearest are {', '.join(dict.fromkeys(_index()[key] for key in near))}"
    return f"name a built-in one ({', '.join(names()[:5])}, ...), a .jinja file or a model folder"
