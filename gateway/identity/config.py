"""An identity provider, and what those whom it vouches for may do.

Rule: values only, checked when the file is read. Asymmetric algorithms alone can be named: who can check a
token must not be able to make one. Knows no token.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Annotated, Any, Literal, TypeAlias, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from gateway.allowances import NO_LIMITS, Budget, Limits
from gateway.upstreams.download import LOOPBACK

Algorithm: TypeAlias = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]
"""How tokens may be signed (RFC 7518 3.1, RFC 8037)."""

Value: TypeAlias = str | bool | int


def _some(value: Any) -> Any:
    """One value is short for a list of it."""
    return (value,) if isinstance(value, str | bool | int) else value


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"not a URL: {error}") from None
    if not host or not value.isascii() or not value.isprintable() or " " in value or "@" in parts.netloc:
        raise ValueError("must be a URL of a host, without spaces or a user")
    if parts.scheme != "https" and (parts.scheme != "http" or host not in LOOPBACK):
        raise ValueError("must begin with https:// (http:// is for this machine alone)")
    if parts.fragment:
        raise ValueError("must have no fragment (#)")
    return value


def _issuer(value: str) -> str:
    if urlsplit(value).query:
        raise ValueError("must have no query (?)")  # OpenID Connect Discovery 3
    return value


Text: TypeAlias = Annotated[str, Field(min_length=1)]
Url: TypeAlias = Annotated[str, AfterValidator(_url)]
Some: TypeAlias = Annotated[tuple[Value, ...], BeforeValidator(_some), Field(min_length=1)]


class Provider(BaseModel):
    """An identity provider of OpenID Connect, and what the tokens that it signs open."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    issuer: Annotated[Url, AfterValidator(_issuer)] = Field(
        description="`iss` of its tokens, to the letter: a slash at the end counts"
    )
    audience: Annotated[tuple[Text, ...], BeforeValidator(_some)] = Field(
        min_length=1, description="who its tokens must be for (`aud`): this, or one of these"
    )
    jwks_url: Url | None = Field(
        None, description="where its public keys are; null: as ISSUER/.well-known/openid-configuration says"
    )
    algorithms: tuple[Algorithm, ...] = Field(
        get_args(Algorithm), min_length=1, description="how its tokens may be signed"
    )
    name: str | None = Field(
        None,
        description="claim shown in place of a key's name; null: email if not unverified, else sub",
    )
    team: str | None = Field(None, description="team of everybody, or of those whom `team_claim` gives none")
    team_claim: str | None = Field(None, description="claim with the team, or with groups that `teams` knows")
    teams: Mapping[str, str] = Field(
        default_factory=dict, description="teams by values of `team_claim`; the first that fits counts"
    )
    models: tuple[str, ...] = Field(("*",), description="models that may be called: names or * patterns")
    models_claim: str | None = Field(None, description="claim with these names, in place of `models`")
    required: Mapping[str, Some] = Field(
        default_factory=dict, description="claims that a token must have, each with its value or several"
    )
    denied: Annotated[tuple[Text, ...], BeforeValidator(_some)] = Field(
        (), description="people who are not let in, each by `sub` or by name as the ledger shows it"
    )
    leeway: float = Field(30, ge=0, le=300, description="seconds by which clocks may differ")
    max_age: float | None = Field(None, gt=0, description="seconds from `iat` after which a token is refused")
    keep: float = Field(
        3600,
        ge=0,
        le=604800,
        description="seconds, after the first 5 minutes, for which known keys count while it does not answer",
    )
    limits: Limits = Field(NO_LIMITS, description="bounds of rate and number, for each person")
    budgets: tuple[Budget, ...] = Field((), description="what may be spent, by each person")
    priority: int = Field(0, ge=-100, le=100, description="whose requests go first where a model is full")

    @model_validator(mode="after")
    def _one_way(self) -> Provider:
        if self.teams and self.team_claim is None:
            raise ValueError("teams needs team_claim, which says where their names are")
        if self.models_claim is not None and "models" in self.model_fields_set:
            raise ValueError("has both models and models_claim; keep one")
        return self

    @property
    def id_prefix(self) -> str:
        """How the ids of its people begin; no key's does."""
        return f"oidc:{hashlib.sha256(self.issuer.encode()).hexdigest()[:12]}:"

    @property
    def fingerprint(self) -> bytes:
        """Differs, 32 bytes, where other tokens would be let in, whoever is denied."""
        terms = (self.issuer, self.audience, self.jwks_url, self.algorithms, sorted(self.required.items()))
        return hashlib.sha256(repr((*terms, self.max_age)).encode()).digest()

    @property
    def named(self) -> tuple[str, ...]:
        """Teams that its entry names."""
        return (*([self.team] if self.team is not None else []), *self.teams.values())


def _usable(value: tuple[Provider, ...]) -> tuple[Provider, ...]:
    issuers = [provider.issuer for provider in value]
    for issuer in issuers:
        if issuers.count(issuer) > 1:
            raise ValueError(f"the issuer {issuer} is there twice; it can have several audiences")
    if value and (find_spec("jwt") is None or find_spec("cryptography") is None):
        raise ValueError("tokens need PyJWT: pip install 'modal-gateway[oidc]'")
    return value


Providers: TypeAlias = Annotated[tuple[Provider, ...], AfterValidator(_usable)]
