"""One key of the store as a value, and what a new one looks like.

Rule: the secret is 32 random bytes, so a plain SHA-256 of it can be kept: there is nothing to guess. What is
shown of a key never holds either. Times are milliseconds since 1970.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from gateway.allowances import NO_LIMITS, Budget, Limits
from gateway.auth import Caller
from gateway.keys.terms import Expiry, readable
from gateway.settings import ApiKey, Auth


def new_secret() -> str:
    """A key: ``sk-`` and 32 random bytes in URL-safe base64."""
    return "sk-" + secrets.token_urlsafe(32)


def digest_of(secret: str) -> bytes:
    """What is kept of a key: its SHA-256, 32 bytes."""
    return hashlib.sha256(secret.encode()).digest()


class NoSuchKey(Exception):
    """There is no key of this name or id in the store."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no key {readable(name)}")
        self.name = name


class KeyExists(Exception):
    """Another key has this name."""

    def __init__(self, name: str) -> None:
        self.shown = readable(name)
        super().__init__(f"there is a key {self.shown} already")


class SpoiltKey(Exception):
    """What the store has of this key cannot be read."""

    def __init__(self, name: str) -> None:
        self.shown = readable(name)
        super().__init__(
            f"the key {self.shown} cannot be read from the store; it can be revoked, nothing else"
        )


class Grant(BaseModel):
    """What a key may do: the fields that its maker sets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=128, description="shown in place of the key; one key a name")
    team: str | None = Field(None, max_length=128, description="team whose limits and budgets it shares")
    owner: str | None = Field(None, max_length=256, description="who to ask about it")
    models: tuple[str, ...] = Field(("*",), min_length=1, description="models it may call; * is any text")
    expires: Expiry | None = Field(None, description="when it ends, with its zone")
    limits: Limits = Field(NO_LIMITS, description="bounds of rate and number")
    budgets: tuple[Budget, ...] = Field((), description="what may be spent")
    priority: int = Field(0, ge=-100, le=100, description="whose requests go first where a model is full")
    tags: tuple[str, ...] = Field((), description="words to find it by")
    disabled: bool = Field(False, description="refused for now")

    @classmethod
    def sent(cls, fields: Mapping[str, Any]) -> Self:
        """One from JSON, of which every value has its own type; ``expires`` is a time already.

        Raises pydantic's ``ValidationError``.
        """
        known = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
        return cls.model_validate(known, strict=True)

    @field_validator("limits", "budgets", "tags", mode="before")
    @classmethod
    def _none(cls, value: Any, info: ValidationInfo) -> Any:
        """Null takes all of them away."""
        return cls.model_fields[str(info.field_name)].default if value is None else value

    @field_validator("name", "team", "owner")
    @classmethod
    def _readable(cls, value: str | None) -> str | None:
        if value is not None and (not value.strip() or not value.isprintable()):
            raise ValueError("must be text that can be read")
        return value

    @field_validator("models", "tags")
    @classmethod
    def _words(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(word.strip() and word.isprintable() for word in value):
            raise ValueError("must be words that can be read")
        return value


@dataclass(slots=True, frozen=True)
class Key:
    """A key of the store. ``digest`` is what it is known by; one that is ``spoilt`` could not be read."""

    id: str
    digest: bytes = field(repr=False)
    grant: Grant
    created: int
    updated: int
    revoked: int | None = None
    revision: int = 0
    spoilt: bool = False

    @classmethod
    def new(cls, grant: Grant, secret: str, now: int) -> Self:
        """A key that never was, with an id of its own."""
        return cls("key_" + secrets.token_hex(8), digest_of(secret), grant, now, now)

    @property
    def usable(self) -> bool:
        """Whether it opens anything; when it expires is for who asks to see."""
        return self.revoked is None and not self.grant.disabled and not self.spoilt

    def caller(self) -> Caller:
        grant = self.grant
        return Caller(
            grant.name,
            grant.models,
            id=self.id,
            team=grant.team,
            limits=grant.limits,
            budgets=grant.budgets,
            priority=grant.priority,
            expires=grant.expires.timestamp() if grant.expires else None,
            credential=self.digest,
        )

    def state(self, now: float) -> str:
        """active, disabled, expired, revoked or unreadable, at ``now`` in seconds since 1970."""
        if self.revoked is not None:
            return "revoked"
        if self.spoilt:
            return "unreadable"
        if self.grant.disabled:
            return "disabled"
        expires = self.grant.expires
        return "expired" if expires is not None and expires.timestamp() <= now else "active"

    def shown(self, now: float) -> dict[str, Any]:
        """Everything but the secret and its digest, fit for JSON."""
        return {
            "id": self.id,
            "state": self.state(now),
            **self.grant.model_dump(mode="json", exclude_none=False),
            "created": iso(self.created),
            "updated": iso(self.updated),
            "revoked": iso(self.revoked) if self.revoked is not None else None,
        }


def counted(auth: Auth) -> list[ApiKey]:
    """The keys of a configuration that are ones, those that are disabled too."""
    return [key for key in auth.keys if auth.mode == "keys" and key.digest is not None]


def called(keys: Iterable[ApiKey], name: str) -> ApiKey | None:
    """That of the configuration's keys which has this id or name."""
    return next((key for key in keys if name in (f"config:{key.name}", key.name)), None)


def written(key: ApiKey, now: float) -> dict[str, Any]:
    """A key of the configuration as it is shown at ``now``, seconds since 1970; fit for JSON."""
    state = "configured"
    if key.disabled:
        state = "disabled"
    elif key.expires is not None and key.expires.timestamp() <= now:
        state = "expired"
    own = key.model_dump(mode="json", exclude={"key", "sha256"})
    return {"id": f"config:{key.name}", "state": state, **own}


def iso(milliseconds: int) -> str:
    """The time in UTC, to the second."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
