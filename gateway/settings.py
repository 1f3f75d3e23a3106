"""The configuration: one YAML file as frozen values, checked before anything starts.

Rule: every key is known or refused, with the nearest valid one named; the environment is read here and
nowhere else, where a value names a variable; secrets never appear in ``repr``. Knows nothing about how a
model is served.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from gateway.allowances import NO_LIMITS, Allowance, Budget, Limits
from gateway.complaints import nearest, one_line
from gateway.core.parameters import DEFAULTABLE
from gateway.core.template import FillIn
from gateway.core.tools import DIALECTS
from gateway.core.wire import ChatRequest, bad_request
from gateway.document import document
from gateway.facts import with_facts
from gateway.identity.config import Providers
from gateway.keys.terms import Expiry, refuse_twins
from gateway.serve.images import ImageHost
from gateway.serve.retention import Retain
from gateway.store.config import Redis, Store
from gateway.telemetry.trace import Spans
from gateway.upstreams.kinds import UpstreamConfig
from gateway.variables import expand
from gateway.warming.hours import Warm


class ConfigError(Exception):
    """The configuration cannot be used; the message is one line that names the key."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Server(_Section):
    """How requests are taken. Sizes in bytes, times in seconds."""

    max_body: int = Field(8388608, ge=1024, description="largest request body, bytes")
    max_n: int = Field(8, ge=1, description="largest n a request may ask for")
    first_byte_grace: float = Field(
        8, ge=0, description="seconds a stream waits for its first event before headers are sent anyway"
    )
    drain_timeout: float = Field(30, ge=0, description="seconds that open requests get at shutdown")
    leave_delay: float = Field(
        0, ge=0, description="seconds after SIGTERM with requests still taken, but /health/ready a 503"
    )
    cors_origins: tuple[str, ...] = Field((), description="browser origins allowed to call, or ['*']")
    image_hosts: tuple[ImageHost, ...] = Field(
        (), description="hosts that images may be fetched from: example.org, *.example.org, localhost:8080"
    )
    log: Literal["auto", "text", "json", "off"] = Field(
        "auto", description="a line for each request; auto: text on a terminal, else json; off: for failures"
    )
    show_wire: bool = Field(
        False, description="print prompts, calls and raw answers, to find faults; else GATEWAY_SHOW_WIRE"
    )
    public: bool = Field(
        False, description="open /metrics, /docs and /openapi.json without a key off loopback"
    )


class ApiKey(_Section):
    """A client's key, given as itself or as its SHA-256 in hex; ``models`` are names or patterns."""

    name: str = Field(min_length=1, description="shown in logs and metrics in place of the key")
    key: SecretStr | None = Field(None, description="the key itself; empty means not set")
    sha256: str | None = Field(None, pattern=r"^[0-9a-fA-F]{64}$", description="the key's SHA-256, in hex")
    models: tuple[str, ...] = Field(("*",), description="models the key may call: names or * patterns")
    team: str | None = Field(None, description="team whose limits and budgets it shares")
    owner: str | None = Field(None, description="who to ask about it")
    expires: Expiry | None = Field(None, description="when it ends, with its zone: 2027-01-31T00:00Z")
    limits: Limits = Field(NO_LIMITS, description="bounds of rate and number")
    budgets: tuple[Budget, ...] = Field((), description="what may be spent")
    priority: int = Field(0, ge=-100, le=100, description="whose requests go first where a model is full")
    tags: tuple[str, ...] = Field((), description="words to find it by")
    disabled: bool = Field(False, description="refused for now")

    @model_validator(mode="after")
    def _given_once(self) -> ApiKey:
        if self.sha256 and self.key is not None and self.key.get_secret_value():
            raise ValueError("give key or sha256, not both")
        return self

    @property
    def digest(self) -> bytes | None:
        """SHA-256 of the key, 32 bytes; None if the key is empty."""
        if self.sha256:
            return bytes.fromhex(self.sha256)
        secret = self.key.get_secret_value() if self.key else ""
        return hashlib.sha256(secret.encode()).digest() if secret else None


class Auth(_Section):
    mode: Literal["none", "keys"] = Field("keys", description="none is for loopback only")
    keys: tuple[ApiKey, ...] = Field(
        (), description="static keys; where none are written, one called me from GATEWAY_API_KEY"
    )
    oidc: Providers = Field((), description="identity providers whose tokens open the door as keys do")

    @field_validator("keys")
    @classmethod
    def _no_twins(cls, value: tuple[ApiKey, ...]) -> tuple[ApiKey, ...]:
        refuse_twins((key.name, key.digest) for key in value)
        return value

    @model_validator(mode="after")
    def _tokens_need_a_door(self) -> Auth:
        if self.oidc and self.mode == "none":
            raise ValueError("oidc needs mode: keys; with none everybody is let in")
        return self


class Admin(_Section):
    key: SecretStr = Field(SecretStr(""), description="key of the admin API; else MODAL_GATEWAY_ADMIN_KEY")
    console: bool = Field(True, description="serve the console at /")


class Reasoning(_Section):
    start: str = Field("<think>", min_length=1, description="begins the reasoning")
    end: str = Field("</think>", min_length=1, description="ends the reasoning")
    starts_open: bool = Field(False, description="the answer begins inside, though no prompt shows it")


class Price(_Section):
    """Dollars."""

    per_gpu_second: float | None = Field(None, ge=0, description="dollars per GPU and second")
    gpus: int = Field(1, ge=1, description="GPUs of one container")
    per_million_input: float | None = Field(None, ge=0, description="dollars per million prompt tokens")
    per_million_output: float | None = Field(None, ge=0, description="dollars per million answer tokens")


class Model(_Section):
    """One model: where it runs and what it is like."""

    aliases: tuple[str, ...] = Field((), description="other names clients may use")
    upstreams: tuple[UpstreamConfig, ...] = Field(min_length=1, description="or `upstream:` for a single one")
    template: str = Field(
        "chatml", description="built-in name, path.jinja, model folder or tokenizer_config.json"
    )
    system_default: str | None = Field(None, description="system message for requests that have none")
    tokenizer: str | None = Field(None, description="tokenizer.json or model folder, to count tokens exactly")
    context_length: int | None = Field(None, ge=1, description="tokens of prompt and answer together")
    max_output_tokens: int | None = Field(None, ge=1, description="largest max_tokens accepted")
    stop: tuple[str, ...] = Field((), description="boundary stops beside the template's own")
    tools: str | None = Field(None, description="dialect of calls of tools; null: the template's")
    reasoning: Reasoning | None = Field(None, description="how the model marks its reasoning")
    json_stream: Literal["live", "buffered"] = Field(
        "live", description="a stream of JSON: as it comes and judged at its end, or judged and then sent"
    )
    repair_attempts: int = Field(1, ge=0, le=5, description="how often wrong JSON is asked for again")
    guided: bool = Field(False, description="the backend constrains decoding by schema")
    logprobs: bool = Field(False, description="the backend gives logprobs")
    images: bool = Field(False, description="the backend takes images")
    image_token: str | None = Field(
        None, description="what stands for an image in the prompt; null: the template's, empty: nothing does"
    )
    fill_in: FillIn | None = Field(None, description="how a `suffix` is filled up to; null: the template's")
    control_tokens: Literal["neutralise", "reject", "pass"] = Field(
        "neutralise", description="what happens to control strings in user text"
    )
    defaults: Mapping[str, Any] = Field(
        default_factory=dict, description="sampling parameters clients may override"
    )
    embedding_ids: str = Field(
        "cl100k",
        description="what token ids sent for embedding are: cl100k, the path of that table, or model: "
        "the tokenizer's own",
    )
    embedding_batch: int = Field(32, ge=1, le=2048, description="texts in one call for embeddings")
    matryoshka: bool = Field(False, description="embeddings may be cut to the `dimensions` asked for")
    price: Price = Price()
    limits: Limits = Field(NO_LIMITS, description="bounds of rate and number of all keys together")
    budgets: tuple[Budget, ...] = Field((), description="what all keys together may spend on it")
    balance: Literal["least_pending", "round_robin"] = Field(
        "least_pending", description="choice among upstreams"
    )
    fallback: tuple[str, ...] = Field((), description="other models, tried in order before the first event")
    cold: Literal["wait", "fallback", "fail"] = Field("wait", description="when no container is ready")
    warm: Warm | None = Field(None, description="hours in which it is kept warm")
    from_: str | None = Field(
        None, alias="from", description="deployment file, or its name, that this entry takes its facts from"
    )

    @model_validator(mode="before")
    @classmethod
    def _one_or_many(cls, data: Any) -> Any:
        if isinstance(data, dict) and "upstream" in data:
            if "upstreams" in data:
                raise ValueError("has both upstream and upstreams; keep one")
            data = {**data, "upstreams": [data["upstream"]]}
            del data["upstream"]
        return data

    @field_validator("upstreams", mode="before")
    @classmethod
    def _default_kind(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        return [{"kind": "prompt", **item} if isinstance(item, dict) else item for item in value]

    @field_validator("defaults")
    @classmethod
    def _known_defaults(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        for name in value:
            if name not in DEFAULTABLE:
                raise ValueError(f"unknown sampling parameter {name}{nearest(name, DEFAULTABLE)}")
        given = {name: setting for name, setting in value.items() if setting is not None}
        try:  # the same rules as for what clients send
            checked = ChatRequest.model_validate({"messages": [{"role": "user", "content": ""}], **given})
        except ValidationError as exc:
            raise ValueError(bad_request(exc).message.rstrip(".")) from None
        return {name: getattr(checked, name) for name in given}

    @field_validator("tools")
    @classmethod
    def _known_dialect(cls, value: str | None) -> str | None:
        if value is not None and value not in DIALECTS:
            near = nearest(value, DIALECTS)
            raise ValueError(f"there is no dialect {value}{near}; known are {', '.join(DIALECTS)}")
        return value

    @field_validator("stop")
    @classmethod
    def _no_empty_stops(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(stop for stop in value if stop)

    @model_validator(mode="after")
    def _kept_by_its_kind(self) -> Model:
        if self.warm and self.warm.min_containers > 1 and self.upstreams[0].kind != "modal":
            raise ValueError("warm.min_containers: more than 1 needs kind: modal; requests keep one awake")
        return self

    @model_validator(mode="after")
    def _defaults_within_caps(self) -> Model:
        asked, cap = self.defaults.get("max_tokens"), self.max_output_tokens
        if asked is not None and cap is not None and asked > cap:
            raise ValueError(f"defaults.max_tokens is {asked}, above max_output_tokens, {cap}")
        return self


class Settings(_Section):
    server: Server = Server()
    auth: Auth = Auth()
    admin: Admin = Admin()
    store: Store = Store()
    redis: Redis = Redis()
    tracing: Spans = Spans()
    responses: Retain = Retain()
    teams: Mapping[str, Allowance] = Field(
        default_factory=dict, description="what all keys of a team together may use"
    )
    default_model: str | None = Field(None, description="what an unknown model name becomes")
    models: Mapping[str, Model] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_agree(self) -> Settings:
        seen: dict[str, str] = {}
        for name, model in self.models.items():
            for alias in (name, *model.aliases):
                if not alias.strip() or not alias.isprintable():
                    raise ValueError(f"models: {alias!r} is no name that clients could send")
                if alias in seen and seen[alias] != name:
                    raise ValueError(f"models.{name}: the name {alias} already belongs to {seen[alias]}")
                seen[alias] = name
        for name, model in self.models.items():
            for other in model.fallback:
                if other not in seen:
                    raise ValueError(f"models.{name}.fallback: no model {other}{nearest(other, seen)}")
        if self.default_model is not None and self.default_model not in seen:
            raise ValueError(
                f"default_model: no model {self.default_model}{nearest(self.default_model, seen)}"
            )
        return self

    @model_validator(mode="after")
    def _teams_agree(self) -> Settings:
        """A team is a label where no teams are written."""
        named = [(f"auth.keys: {key.name}", key.team) for key in self.auth.keys]
        named += [(f"auth.oidc: {each.issuer}", team) for each in self.auth.oidc for team in each.named]
        for whose, team in named:
            if self.teams and team is not None and team not in self.teams:
                raise ValueError(f"{whose} is of a team {team} that teams has not{nearest(team, self.teams)}")
        return self


def load(path: Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings in this file. Raises ``ConfigError`` in one line that names the key."""
    try:
        data = document(path)
    except ValueError as exc:
        raise ConfigError(str(exc)) from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold a mapping with `models:`")
    try:
        return settings_from(data, environ, path.parent)
    except ConfigError as exc:
        raise ConfigError(f"{path}: {exc}") from None


def settings_from(
    data: Mapping[str, Any], environ: Mapping[str, str] = os.environ, folder: Path = Path()
) -> Settings:
    """Settings from plain data; ``folder`` is where the paths of ``from`` start. Raises ``ConfigError``."""
    try:
        values = expand(_with_own_keys(data), environ)
    except ValueError as exc:
        raise ConfigError(str(exc)) from None
    expanded = _with_facts(values, folder)
    try:
        return Settings.model_validate(expanded)
    except ValidationError as exc:
        raise ConfigError(one_line(exc, expanded, _schema())) from None


_OWN: Mapping[str, Mapping[str, Any]] = {
    "auth": {"keys": [{"name": "me", "key": "${GATEWAY_API_KEY:-}"}]},
    "admin": {"key": "${MODAL_GATEWAY_ADMIN_KEY:-}"},
    "server": {"show_wire": "${GATEWAY_SHOW_WIRE:-0}"},
    "tracing": {"endpoint": "${OTEL_EXPORTER_OTLP_ENDPOINT:-}"},
}


def _with_own_keys(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is not written is taken from the environment, where that has it."""
    written = {name: data.get(name) or {} for name in _OWN}
    own = {name: {**_OWN[name], **keys} for name, keys in written.items() if isinstance(keys, dict)}
    return {**data, **own}


def _with_facts(data: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    """Each model's entry with the facts of the file that its ``from`` names."""
    models = data.get("models")
    if not isinstance(models, dict):
        return data
    try:
        full = dict(models)
        for name, entry in models.items():
            if isinstance(entry, dict) and entry.get("from") is not None:
                full[name] = with_facts(entry, folder)
    except ValueError as exc:
        raise ConfigError(f"models.{name}.from: {exc}") from None
    return {**data, "models": full}


@cache
def _schema() -> Mapping[str, Any]:
    return Settings.model_json_schema()
