"""Every kind of upstream: its configuration, and what is made of it.

Rule: a registry is a literal that can be read. A new kind is one file beside this one, one member of the
union and one row of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, Field

from gateway.upstreams import Upstream
from gateway.upstreams.demo import DemoConfig, DemoUpstream
from gateway.upstreams.modal_sdk import ModalUpstream
from gateway.upstreams.modal_sdk.config import ModalConfig
from gateway.upstreams.openai import OpenAIConfig, OpenAIUpstream
from gateway.upstreams.prompt import PromptConfig, PromptUpstream

Config: TypeAlias = PromptConfig | OpenAIConfig | ModalConfig | DemoConfig
UpstreamConfig: TypeAlias = Annotated[Config, Field(discriminator="kind")]

_UPSTREAMS: Mapping[type[BaseModel], Callable[..., Upstream]] = {
    PromptConfig: PromptUpstream,
    OpenAIConfig: OpenAIUpstream,
    ModalConfig: ModalUpstream,
    DemoConfig: DemoUpstream,
}
KINDS: tuple[str, ...] = tuple(config.model_fields["kind"].default for config in _UPSTREAMS)


def build(name: str, config: Config, **where: Any) -> Upstream:
    """The upstream of this configuration; ``where``: ``model``, its name, and ``at``, its config key."""
    return _UPSTREAMS[type(config)](name, config, **where)
