"""``check``: is this configuration fit to be served?

Rule: reads, loads and connects; sends nothing, so that no container wakes. Every model is looked at, whatever
is wrong with another.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from gateway.cli import show
from gateway.cli.sources import Guests, Source, callers, guests, key_line, takes_keys
from gateway.cli.tables import table
from gateway.core.errors import GatewayError
from gateway.models import deployment
from gateway.routing.routes import Deployment
from gateway.settings import ConfigError, Model, Settings
from gateway.store.engine import NoDatabase, open_engine
from gateway.upstreams.modal_sdk.config import ModalConfig

SHORT = 16  # characters of a key that somebody chose, and others may guess


@dataclass(slots=True, frozen=True)
class Line:
    """One upstream of one model; ``wrong`` is None where all is well."""

    model: str
    template: str | None  # None: the upstream renders the prompt itself
    kind: str
    host: str | None  # or the function's name at Modal; None: there is nothing to connect to
    wrong: str | None


def check(source: Source, *, json: bool) -> int:
    """Print what was found; 1 if something is wrong."""
    settings = source.settings()
    with show.busy("connecting to the upstreams"):
        lines = asyncio.run(_look(settings, source))
    problems = list(dict.fromkeys(line.wrong for line in lines if line.wrong))
    wrong, notes = _deployments(settings, source)
    problems += wrong
    notes += _remarks(settings)
    who, missing = _guests(settings, source)
    problems = list(dict.fromkeys([*missing, *_store(settings, source), *problems]))
    if json:
        _print_json(settings, who, lines, problems)
    else:
        _print(who, lines, problems, notes)
    return bool(problems)


def _guests(settings: Settings, source: Source) -> tuple[Guests, list[str]]:
    """Who may call, and what is wrong with that."""
    try:
        found = guests(source, settings)
    except ConfigError as exc:
        return Guests(tuple(callers(settings.auth))), [str(exc)]
    if settings.auth.mode == "keys" and not found and not takes_keys(source, settings):
        return found, [f"auth.keys has no key. Create one: {key_line(settings.auth)}"]
    return found, []


def _store(settings: Settings, source: Source) -> list[str]:
    """What ``serve`` would refuse of the database and the spool; neither is made here."""
    if source.path is None or settings.store.url is None:
        return []
    wrong = []
    try:
        with suppress(NoDatabase):  # it can be made
            open_engine(settings.store.url, source.folder, create=False).dispose()
    except ConfigError as exc:
        wrong.append(str(exc))
    spool = source.folder / settings.store.spool
    there = next(path for path in (spool, *spool.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        wrong.append(f"store.spool: {spool} cannot be written")
    return wrong


def _deployments(settings: Settings, source: Source) -> tuple[list[str], list[str]]:
    """What is wrong with the deployment files that models take their facts from, and what is only risky.

    The package that deploys them checks them, GPU strings included; it needs no account for it.
    """
    from gateway.cli.deployments import ask
    from gateway.facts import find

    wrong, notes = [], []
    for name, model in settings.models.items():
        if model.from_ is None:
            continue
        try:
            described = ask(str(find(model.from_, source.folder)))
            notes += [f"models.{name}.from: {line}" for line in described["warnings"]]
        except show.CommandError as exc:
            wrong.append(f"models.{name}.from: {exc}")
    return wrong, notes


def _remarks(settings: Settings) -> list[str]:
    """What is worth knowing of the admin key and of upstreams, and is no mistake."""
    short = 0 < len(settings.admin.key.get_secret_value()) < SHORT
    guessed = f"admin.key has fewer than {SHORT} characters: who can reach the gateway may guess it"
    return [guessed] * short + [
        f"models.{name}: {remark}"
        for name, model in settings.models.items()
        for upstream in model.upstreams
        if isinstance(upstream, ModalConfig)
        for remark in upstream.remarks
    ]


def _print_json(settings: Settings, who: Guests, lines: list[Line], problems: list[str]) -> None:
    show.as_json(
        {
            "ok": not problems,
            "auth": {"mode": settings.auth.mode, "keys": who.named, "stored": who.stored},
            "models": [_as_data(name, model, lines) for name, model in settings.models.items()],
            "problems": problems,
        }
    )


def _print(who: Guests, lines: list[Line], problems: list[str], notes: list[str]) -> None:
    print(f"keys: {who}")
    table(("MODEL", "TEMPLATE", "UPSTREAM", "CONNECTS"), [_row(line) for line in lines])
    for note in notes:
        print(f"{show.yellow('note:')} {note}")
    for problem in problems:
        print(f"{show.red('wrong:')} {problem}")
    if not problems:
        print(show.green("all is well"))


async def _look(settings: Settings, source: Source) -> list[Line]:
    looked = [_look_at(name, model, source) for name, model in settings.models.items()]
    return [line for lines in await asyncio.gather(*looked) for line in lines]


async def _look_at(name: str, model: Model, source: Source) -> list[Line]:
    try:
        made = await asyncio.to_thread(deployment, name, model, source.folder)
    except ConfigError as exc:
        return [_line(name, model, index, str(exc)) for index in range(len(model.upstreams))]
    wrong = await asyncio.gather(*(_connect(made, index) for index in range(len(model.upstreams))))
    return [_line(name, model, index, why or _blind(made, index)) for index, why in enumerate(wrong)]


def _blind(made: Deployment, index: int) -> str | None:
    """What is wrong where images are to be shown in prompts, and nobody said how."""
    spec = made.spec
    if not spec.images or spec.template.image is not None or made.upstreams[index].traits.speaks != "prompt":
        return None
    key = f"models.{spec.name}"
    return f"{key}.images: template {spec.template.name} has no token for images; set {key}.image_token"


async def _connect(made: Deployment, index: int) -> str | None:
    try:
        await made.upstreams[index].inner.reachable()
    except GatewayError as error:
        return error.message
    finally:
        await made.upstreams[index].aclose()
    return None


def _line(name: str, model: Model, index: int, wrong: str | None) -> Line:
    upstream = model.upstreams[index]
    url = getattr(upstream, "url", None)
    host = upstream.named if isinstance(upstream, ModalConfig) else urlsplit(url).netloc if url else None
    template = model.template if upstream.traits.speaks == "prompt" else None
    return Line(name, template, upstream.kind, host, wrong)


def _row(line: Line) -> tuple[str, str, str, str]:
    connects = "NO" if line.wrong else "yes" if line.host else "-"
    return (line.model, line.template or "-", f"{line.kind} {line.host or ''}".rstrip(), connects)


def _as_data(name: str, model: Model, lines: list[Line]) -> dict[str, Any]:
    own = [line for line in lines if line.model == name]
    upstreams = [{"kind": line.kind, "host": line.host, "wrong": line.wrong} for line in own]
    return {
        "name": name,
        "aliases": list(model.aliases),
        "template": own[0].template,
        "upstreams": upstreams,
    }
