"""From a model's entry in the configuration to what can be called: its files loaded, its upstreams built.

Rule: what a file holds wrong is a ``ConfigError`` that names the key. Nothing is connected to.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeAlias

from gateway.core.call import Marks
from gateway.core.price import Price
from gateway.core.spec import ModelSpec
from gateway.routing.routes import Deployment
from gateway.routing.target import Target
from gateway.routing.visit import Bounds
from gateway.settings import ConfigError, Model
from gateway.templates import load as load_template
from gateway.token_ids import FOUND, Cl100k, Decode, of_tokenizer
from gateway.tokens import counter
from gateway.upstreams.demo import DemoConfig
from gateway.upstreams.endpoint import Endpoint
from gateway.upstreams.kinds import Config, build
from gateway.upstreams.modal_sdk.config import ModalConfig

Known: TypeAlias = Callable[[str, Config], Target | None]
"""The upstream of this name and entry, if there is one already."""


class Making(NamedTuple):
    """How upstreams are made: ``clock`` gives monotonic seconds, ``workers`` processes have the same ones."""

    clock: Callable[[], float] = time.monotonic
    known: Known = lambda _name, _config: None
    workers: int = 1


def deployment(name: str, model: Model, folder: Path, making: Making | None = None) -> Deployment:
    """One model, its files loaded (paths are relative to ``folder``).

    Raises ``ConfigError`` that names the key.
    """
    where = f"models.{name}"
    tokenizer = folder / model.tokenizer if model.tokenizer else None
    try:
        count = counter(tokenizer) if tokenizer else None
    except ValueError as exc:
        raise ConfigError(f"{where}.tokenizer: {exc}") from None
    return Deployment(
        _spec(name, model, folder),
        [_target(name, index, model, making or Making()) for index in range(len(model.upstreams))],
        model.aliases,
        model.balance,
        model.fallback,
        model.cold,
        count,
        decode=_decoder(where, model, folder),
        json_stream=model.json_stream,
        repair_attempts=model.repair_attempts,
        price=Price(**dict(model.price)),
        limits=model.limits,
        budgets=model.budgets,
        detokenize=of_tokenizer(tokenizer) if tokenizer else None,
    )


def _spec(name: str, model: Model, folder: Path) -> ModelSpec:
    try:
        template = load_template(model.template, folder)
    except (ValueError, OSError) as exc:
        raise ConfigError(f"models.{name}.template: {exc}") from None
    try:
        template = template if model.image_token is None else template.with_image(model.image_token)
    except ValueError as exc:
        raise ConfigError(f"models.{name}.image_token: {exc}") from None
    return ModelSpec(
        name=name,
        template=template,
        stops=model.stop,
        system_default=model.system_default,
        context_length=model.context_length,
        max_output_tokens=model.max_output_tokens,
        logprobs=model.logprobs,
        images=model.images,
        fill_in=model.fill_in or template.fill_in,
        dialect=model.tools,
        reasoning=Marks(**dict(model.reasoning)) if model.reasoning is not None else None,
        guided=model.guided,
        control_tokens=model.control_tokens,
        defaults=model.defaults,
        embedding_batch=model.embedding_batch,
        matryoshka=model.matryoshka,
    )


def _decoder(where: str, model: Model, folder: Path) -> Decode:
    """What token ids mean to this model."""
    ids = model.embedding_ids
    if ids == "model" and not model.tokenizer:
        raise ConfigError(f"{where}.embedding_ids: model needs {where}.tokenizer")
    try:
        if ids == "model":
            return of_tokenizer(folder / (model.tokenizer or ""))
        return FOUND if ids == "cl100k" else Cl100k(folder / ids)
    except ValueError as exc:
        raise ConfigError(f"{where}.embedding_ids: {exc}") from None


def _target(name: str, index: int, model: Model, making: Making) -> Target:
    config, several = model.upstreams[index], len(model.upstreams) > 1
    called = f"{name}-{index}" if several else name
    if (target := making.known(called, config)) is not None:
        return target
    at = f"models.{name}.upstreams[{index}]" if several else f"models.{name}.upstream"
    upstream = build(called, config, model=name, at=at)
    bounds = Bounds(
        config.max_concurrency,
        config.max_queue,
        config.queue_timeout,
        first_event=config.first_event_timeout if isinstance(config, Endpoint | ModalConfig) else 0.0,
        window=config.scaledown_window,
        sleeps=config.sleeps,
        room=config.room,
        refuses=config.refuses,
        inputs=None if isinstance(config, DemoConfig) else config.inputs_per_container,
        containers=config.max_containers,
        workers=making.workers,
    )
    return Target(upstream, bounds, making.clock)
