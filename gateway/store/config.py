"""Where keys, the ledger and shared limits are kept: a database, and Redis.

Rule: what can never be opened is refused here already, so that a reload and a check refuse what a start does;
whether it answers is found out later. Knows no driver.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

KINDS = ("sqlite", "postgresql")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Store(_Section):
    """The database of keys and ledger."""

    url: SecretStr | None = Field(
        SecretStr("sqlite:///gateway.db"),
        description="database of keys and ledger, relative to this file; null: neither is kept",
    )
    spool: str = Field("gateway.spool", description="folder of what is not in the database yet, relative too")
    fsync: Literal["never", "batch", "always"] = Field(
        "batch", description="when the spool is forced to disk: never, soon, or before each answer begins"
    )
    log_content: bool = Field(False, description="keep prompts and answers in the ledger")
    retain_days: int = Field(400, ge=1, description="days for which each request stays in the ledger")
    revocation_poll: float = Field(
        0.5, gt=0, le=30, description="seconds between two looks for keys that were changed elsewhere"
    )

    @field_validator("url")
    @classmethod
    def _known_kind(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and value.get_secret_value().split(":")[0].split("+")[0] not in KINDS:
            raise ValueError("must begin with sqlite:/// or postgresql://")
        return value


class Redis(_Section):
    url: SecretStr | None = Field(
        None, description="shared limits for several workers or gateways; empty means not set"
    )

    @field_validator("url")
    @classmethod
    def _empty_is_none(cls, value: SecretStr | None) -> SecretStr | None:
        given = value.get_secret_value() if value is not None else ""
        if given and not given.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must begin with redis://, rediss:// or unix://")
        return value if given else None
