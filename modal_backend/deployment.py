"""A deployment file as frozen values: what runs on Modal, on which hardware, and what a gateway must know.

Rule: every key is known or refused, with the nearest valid one named; everything that can be checked without
an account is checked here, GPU strings included. Knows nothing about Modal's SDK, engines or where files are
(``presets.py`` does). Needs the standard library only, because the container reads its deployment back here.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal

MODELS = "/models"  # where weights are mounted
CACHE = "/cache"  # where compiled kernels are mounted
ENGINES = ("demo", "transformers", "embed", "vllm", "sglang")
SERVERS = ("vllm", "sglang")  # programs that `serve: server` runs, and which speak OpenAI's API

# doc: modal.com/docs/guide/gpu; `H100!` is never upgraded to an H200, `B200+` may be a B300.
GPUS: Mapping[str, int] = {
    "T4": 8, "L4": 8, "A10": 4, "L40S": 8, "A100": 8, "A100-40GB": 8, "A100-80GB": 8, "RTX-PRO-6000": 8,
    "H100": 8, "H100!": 8, "H200": 8, "B200": 8, "B200+": 8, "B300": 8,
}  # fmt: skip
"""Every GPU there is, and how many of it one container may have."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_VERIFIED = re.compile(r"none|built-offline|ran-on-gpu \d{4}-\d{2}-\d{2}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class DeploymentError(Exception):
    """The file cannot be deployed; the message is one line that names the key."""


def _between(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise DeploymentError(f"{name}: must be from {low} to {high}, not {value}")


def _nearest(name: str, known: typing.Iterable[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What the container is made of."""

    base: str | None = None
    """A registry's image; without one, Debian with Python."""
    python: str = "3.12"
    apt: tuple[str, ...] = ()
    pip: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Concurrency:
    """Requests that one container takes at once; above the target Modal starts another container."""

    max_inputs: int = 32
    target_inputs: int | None = None

    def __post_init__(self) -> None:
        _between("max_inputs", self.max_inputs, 1, 1000)
        if self.target_inputs is not None:
            _between("target_inputs", self.target_inputs, 1, self.max_inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A secret of the workspace, and the variables that must be in it."""

    name: str
    required_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class When:
    """A time at which ``containers`` becomes the least number of containers."""

    cron: str | None = None
    timezone: str = "UTC"
    period: int | None = None
    """Seconds."""
    containers: int | None = None

    def __post_init__(self) -> None:
        if (self.cron is None) == (self.period is None):
            raise DeploymentError("cron: give either cron or period")
        if self.cron is not None and len(self.cron.split()) != 5:
            raise DeploymentError(f"cron: five fields are needed, as in '0 8 * * 1-5', not {self.cron!r}")
        if self.period is not None:
            _between("period", self.period, 60, 30 * 86400)
        if self.containers is not None:
            _between("containers", self.containers, 0, 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When containers are started ahead of need, and when they may go again."""

    warm_up: When | None = None
    scale_down: When | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Dollars; passed to the gateway as it is."""

    per_gpu_second: float | None = None
    gpus: int = 1
    per_million_input: float | None = None
    per_million_output: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One model as it is deployed. Times in seconds, ``memory`` and ``ephemeral_disk`` in MiB."""

    name: str
    model: str
    revision: str = "main"
    app: str | None = None
    """The Modal app's name; the deployment's own where none is given."""
    engine: Literal["demo", "transformers", "embed", "vllm", "sglang"]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    serve: Literal["web", "server"] = "web"
    proxy_auth: bool = True
    image: Image = Image()
    gpu: tuple[str, ...] = ()
    cpu: float | None = None
    memory: int | None = None
    ephemeral_disk: int | None = None
    min_containers: int = 0
    max_containers: int | None = None
    buffer_containers: int | None = None
    scaledown_window: int = 300
    concurrency: Concurrency = Concurrency()
    timeout: int = 3600
    startup_timeout: int = 900
    snapshot: Literal["none", "cpu", "gpu"] = "none"
    volumes: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[Secret, ...] = ()
    region: tuple[str, ...] = ()
    schedule: Schedule = Schedule()
    template: str | None = None
    context_length: int | None = None
    stops: tuple[str, ...] = ()
    dialect: str | None = None
    tokenizer: str | None = None
    aliases: tuple[str, ...] = ()
    price: Price = Price()
    verified: str = "none"

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.app_name):
            raise DeploymentError(f"app: {self.app_name!r} is no name for an app: letters, digits, . _ -")
        for gpu in self.gpu:
            check_gpu(gpu)
        if not _VERIFIED.fullmatch(self.verified):
            raise DeploymentError("verified: must be none, built-offline or ran-on-gpu YYYY-MM-DD")
        _between("scaledown_window", self.scaledown_window, 2, 3600)  # what the SDK accepts
        _between("timeout", self.timeout, 1, 86400)
        _between("startup_timeout", self.startup_timeout, 1, 86400)
        if self.max_containers is not None:
            _between("min_containers", self.min_containers, 0, self.max_containers)
        for path in self.volumes:
            if not path.startswith("/"):
                raise DeploymentError(f"volumes: {path} must be an absolute path")
        self._check_engine()

    def _check_engine(self) -> None:
        if self.engine == "sglang" and self.serve != "server":
            raise DeploymentError("serve: the engine sglang needs `serve: server`")
        if self.snapshot != "none" and self.serve == "server":
            raise DeploymentError("snapshot: goes with `serve: web` alone")
        if self.snapshot == "gpu" and (not self.gpu or self.gpus > 1):
            raise DeploymentError("snapshot: gpu needs exactly one GPU")  # doc: guide/memory-snapshots

    @property
    def app_name(self) -> str:
        return self.app or self.name

    @property
    def gpus(self) -> int:
        """GPUs of one container, the most of any fallback."""
        return max((check_gpu(gpu) for gpu in self.gpu), default=0)

    @property
    def mounts(self) -> Mapping[str, str]:
        """Path -> volume. Weights and compiled kernels have one each, whatever the file says."""
        return {MODELS: "modal-gateway-models", CACHE: "modal-gateway-cache", **self.volumes}

    @property
    def speaks(self) -> Literal["prompt", "openai"]:
        """The kind of upstream that a gateway needs for it."""
        return "openai" if self.engine in SERVERS and self.serve == "server" else "prompt"

    def warnings(self) -> list[str]:
        """What may be deployed, but should not stay."""
        found = []
        if self.engine != "demo" and not _COMMIT.fullmatch(self.revision):
            found.append(
                f"revision {self.revision} is not pinned: what is downloaded may change. Pin the commit that "
                "`download` prints before production"
            )
        if not self.proxy_auth:
            found.append("proxy_auth is off: whoever knows the address can use your GPUs")
        return found


def check_gpu(text: str) -> int:
    """How many GPUs one of Modal's GPU strings asks for. Raises ``DeploymentError``."""
    kind, colon, count = text.upper().partition(":")
    if kind not in GPUS:
        raise DeploymentError(f"gpu: there is no {text!r}{_nearest(kind, GPUS)} (one of {', '.join(GPUS)})")
    if colon and not (count.isdigit() and 1 <= int(count) <= GPUS[kind]):
        raise DeploymentError(f"gpu: {text!r} must ask for 1 to {GPUS[kind]} GPUs")
    return int(count) if colon else 1


def read(name: str, data: object) -> Deployment:
    """The deployment that this plain data describes. Raises ``DeploymentError``."""
    if not isinstance(data, Mapping):
        raise DeploymentError("the file must hold a mapping with `model:` and `engine:`")
    return typing.cast(Deployment, _section(Deployment, {"name": name, **data}, ""))


def _section(section: type[Any], data: object, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise DeploymentError(f"{where}: must be a mapping")
    known = {each.name: each for each in fields(section)}
    hints = typing.get_type_hints(section)
    prefix = f"{where}." if where else ""
    for key in data:
        if key not in known:
            raise DeploymentError(f"{prefix}{key}: unknown key{_nearest(str(key), known)}")
    for name, each in known.items():
        if each.default is MISSING and each.default_factory is MISSING and data.get(name) is None:
            raise DeploymentError(f"{prefix}{name}: is required")
    written = {key: value for key, value in data.items() if value is not None}
    given = {key: _value(hints[key], value, f"{prefix}{key}") for key, value in written.items()}
    try:
        return section(**given)
    except DeploymentError as exc:
        raise DeploymentError(f"{prefix}{exc}") from None


def _value(hint: Any, value: Any, where: str) -> Any:
    """``value``, if it is of this type; a single item stands for a list of one. Null means absent."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        return _value(next(each for each in arguments if each is not type(None)), value, where)
    if origin is Literal:
        if value not in arguments:
            valid = ", ".join(arguments)
            raise DeploymentError(f"{where}: must be one of {valid}{_nearest(str(value), arguments)}")
        return value
    if origin is tuple:
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(_value(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(items))
    if origin is not None:  # a mapping
        if not isinstance(value, Mapping):
            raise DeploymentError(f"{where}: must be a mapping")
        return {str(key): _value(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if hasattr(hint, "__dataclass_fields__"):
        return _section(hint, value, where)
    return _plain(hint, value, where)


_WORDS: Mapping[type, str] = {str: "text", int: "an integer", float: "a number", bool: "true or false"}


def _plain(hint: Any, value: Any, where: str) -> Any:
    if hint is Any:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise DeploymentError(f"{where}: must be {_WORDS[hint]}")
    return value
