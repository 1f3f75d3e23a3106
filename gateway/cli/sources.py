"""Where the configuration of a command comes from, and whether it may be served at an address.

Rule: without a key nobody but this machine is served, unless a person says so in so many words. Knows nothing
about how anything is served.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.cli.show import CommandError, program
from gateway.settings import Auth, Settings, load, settings_from

DEFAULT = Path("config/gateway.yaml")
MY_MODEL = "my-model"  # what `serve --url` calls a model that nobody named


@dataclass(slots=True, frozen=True)
class Source:
    """A configuration that every process can read for itself: a file, or plain data."""

    path: str | None = None
    data: Mapping[str, Any] | None = None

    def settings(self) -> Settings:
        """Raises ``ConfigError``."""
        if self.path is not None:
            return load(Path(self.path))
        return settings_from(self.data or {})

    @property
    def folder(self) -> Path:
        """Where relative paths start."""
        return Path(self.path).parent if self.path is not None else Path.cwd()


def from_file(path: Path | None) -> Source:
    """The file given, or the default one."""
    if path is None:
        if not DEFAULT.is_file():
            raise CommandError(
                f"there is no {DEFAULT} here: give --config FILE (or MODAL_GATEWAY_CONFIG), "
                f"serve one model with `{program()} serve --url URL`, or try `{program()} demo`"
            )
        path = DEFAULT
    return Source(path=str(path))


@dataclass(slots=True, frozen=True)
class OneModel:
    """What ``serve --url`` says of its model."""

    url: str
    name: str | None = None
    template: str | None = None
    kind: str = "prompt"

    def source(self) -> Source:
        """The configuration for it. Whoever named no model may call it by any name."""
        if self.kind == "openai" and self.name is None:
            raise CommandError("--kind openai needs --model: the name that the server at --url knows")
        if self.kind == "openai" and self.template is not None:
            raise CommandError("--template has no meaning with --kind openai: that server renders the prompt")
        upstream = {"kind": self.kind, "url": self.url}
        if self.kind == "prompt":
            upstream |= {"modal_key": "${MODAL_KEY:-}", "modal_secret": "${MODAL_SECRET:-}"}
        name = self.name or MY_MODEL
        # `plain` sends a single message as it is, which is what an endpoint of one's own was written for.
        model = {"upstream": upstream, "template": self.template or "plain"}
        default = None if self.name else name
        return Source(data={"default_model": default, "models": {name: model}})


@dataclass(slots=True, frozen=True)
class Guests:
    """Who may call: ``named`` in the configuration, and keys ``stored``; None: the store cannot be read."""

    named: tuple[str, ...] = ()
    stored: int | None = 0

    def __bool__(self) -> bool:
        """Whether there is anyone, as far as is known."""
        return bool(self.named) or self.stored != 0

    def __str__(self) -> str:
        """For people: ``me, ben, 2 in the store``."""
        count = "perhaps some" if self.stored is None else self.stored
        store = [] if self.stored == 0 else [f"{count} in the store"]
        return ", ".join([*self.named, *store]) or "none"


def guests(source: Source, settings: Settings) -> Guests:
    """By the file and by the store, which is only looked at. Raises ``ConfigError``."""
    names = tuple(callers(settings.auth))
    if source.path is None or settings.store.url is None or settings.auth.mode == "none":
        return Guests(names)
    return Guests(names, _stored(settings, source.folder))


def takes_keys(source: Source, settings: Settings) -> bool:
    """Whether the admin API can make the first key, so that a gateway without any is not locked."""
    return (
        source.path is not None
        and settings.store.url is not None
        and bool(settings.admin.key.get_secret_value())
    )


def _stored(settings: Settings, folder: Path) -> int | None:
    """How many keys of the store open something; None if it cannot be asked, or is of another version."""
    from sqlalchemy.exc import SQLAlchemyError

    from gateway.keys.table import every
    from gateway.store.engine import NoDatabase, open_engine, reading
    from gateway.store.schema import HEAD, revision

    try:
        engine = open_engine(settings.store.url, folder, create=False)
    except NoDatabase:
        return 0
    try:
        with reading(engine) as connection:
            found = revision(connection)
        if found is None:
            return 0
        return sum(key.usable for key in every(engine)) if found == HEAD else None
    except (SQLAlchemyError, OSError):
        return None
    finally:
        engine.dispose()


def without_auth(source: Source) -> Source:
    return Source(data={**(source.data or {}), "auth": {"mode": "none"}})


def callers(auth: Auth) -> list[str]:
    """Who may call: the names of keys, then the providers whose tokens count."""
    if auth.mode == "none":
        return []
    names = [key.name for key in auth.keys if key.digest is not None]
    return names + [f"tokens of {provider.issuer}" for provider in auth.oidc]


def key_line(auth: Auth) -> str:
    """The command that leads to a key for this configuration."""
    create = f"{program()} keys create --name me"
    if auth.keys:
        return f'export GATEWAY_API_KEY="$({create})"'
    return f"{create} (and put the line that it prints under auth.keys)"


def refuse_open_door(auth: Auth, host: str, *, loopback: bool, insecure: bool) -> None:
    """Raises ``CommandError`` if these rules would leave the gateway locked, or open to anyone."""
    if auth.mode == "keys" and not callers(auth):
        raise CommandError(f"auth.mode is keys, but auth.keys has no key. Create one: {key_line(auth)}")
    if auth.mode == "none" and not loopback and not insecure:
        raise CommandError(
            f"auth.mode is none, which is for this machine alone, but --host {host} is reachable from "
            "others: set auth.mode to keys, or say --insecure-no-auth"
        )
