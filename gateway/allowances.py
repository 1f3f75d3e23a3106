"""How much of the models somebody may use: limits of rate and number, and budgets for calendar periods.

Rule: values only, the same for a key, a team and a model; null sets no bound. Counting is `gateway/limits`.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Period: TypeAlias = Literal["day", "week", "month", "total"]
"""A calendar period in UTC, weeks from Monday; ``total`` never ends."""

MOST = 10**15  # of anything: what readers of JSON still take for a whole number


class _Values(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _said(cls, value: Any) -> Any:
        if isinstance(value, bool):  # would count as 1
            raise ValueError("must not be true or false")
        return value

    @field_validator("*")
    @classmethod
    def _countable(cls, value: Any) -> Any:
        if isinstance(value, int | float) and value > MOST:
            raise ValueError(f"must be {MOST} or less")
        return value


class Limits(_Values):
    """Bounds of rate and number; null: none."""

    requests_per_minute: int | None = Field(None, ge=1, description="requests in any 60 seconds")
    tokens_per_minute: int | None = Field(
        None, ge=1, description="tokens in any 60 seconds, those an answer may still take included"
    )
    requests_per_day: int | None = Field(None, ge=1, description="requests in any 24 hours")
    concurrent: int | None = Field(None, ge=1, description="requests at the same time")

    def __bool__(self) -> bool:
        return self != NO_LIMITS


class Budget(_Values):
    """What may be spent in a period: dollars, tokens or GPU seconds, one of them."""

    dollars: float | None = Field(None, gt=0, description="dollars that may be spent")
    tokens: int | None = Field(None, ge=1, description="tokens, of prompts and answers")
    gpu_seconds: float | None = Field(None, gt=0, description="seconds of GPU containers")
    per: Period = Field("month", description="period in UTC after which it begins anew; total never does")

    @model_validator(mode="after")
    def _one_of_them(self) -> Budget:
        if sum(amount is not None for amount in (self.dollars, self.tokens, self.gpu_seconds)) != 1:
            raise ValueError("set one of dollars, tokens and gpu_seconds; write several budgets as several")
        return self


class Allowance(_Values):
    """What a team may use together."""

    limits: Limits = Field(Limits(), description="bounds of rate and number of all its keys together")
    budgets: tuple[Budget, ...] = Field((), description="what all its keys may spend together")


class Holder(NamedTuple):
    """Whoever has budgets; ``id`` is what is counted under, ``name`` for people."""

    kind: Literal["key", "team", "model"]
    id: str
    name: str
    budgets: tuple[Budget, ...]


NO_LIMITS = Limits()
