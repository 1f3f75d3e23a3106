"""The configuration of kind ``modal``: which deployed function, how it is called, how it streams.

Rule: values only, checked when the file is read; what could have no effect, or could not be called, is
refused. Times are in seconds. Knows nothing about Modal's SDK but its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator

from gateway.core.call import Traits
from gateway.upstreams.endpoint import RequestFields
from gateway.upstreams.limits import Limits, Seconds

INSTALL = "needs Modal's SDK: pip install 'modal-gateway[modal]'"
NAME = r"^[A-Za-z0-9._-]{1,64}$"  # what Modal takes (modal 1.6.4, is_valid_object_name)
OPTIONS = frozenset({
    "buffer_containers", "cloud", "cpu", "gpu", "max_containers", "memory", "region", "retries",
    "routing_region", "scaledown_window", "timeout",
})  # fmt: skip
"""What `with_options` takes that a file can hold (modal 1.6.4)."""


class ModalConfig(Limits):
    """Keys of ``kind: modal``."""

    model_config = ConfigDict(populate_by_name=True)

    kind: Literal["modal"] = "modal"
    app: str = Field(pattern=NAME, description="name of the deployed app")
    function: str | None = Field(None, min_length=1, description="name of the function; or give a class")
    class_: str | None = Field(None, alias="class", min_length=1, description="name of the class")
    method: str | None = Field(None, pattern=r"^[A-Za-z]\w*$", description="its method that answers")
    parameters: Mapping[str, str | int | bool] = Field(
        default_factory=dict, description="values of the class's parameters"
    )
    pass_: Literal["prompt", "fields", "dict"] = Field(
        "prompt",
        alias="pass",
        description="what the function is given: the prompt alone, keyword arguments, or one dict of them",
    )
    stream: Literal["auto", "none", "generator", "queue"] = Field(
        "auto",
        description="how it streams: not at all, as a generator, by writing to a queue; auto: the first two",
    )
    queue: str | None = Field(None, pattern=NAME, description="name of that queue; without it APP-pieces")
    response_field: str = Field(
        "prompt", pattern=r"^[^.\s]+(\.[^.\s]+)*$", description="where the text is in what is no bare text"
    )
    cumulative: bool = Field(False, description="each piece repeats the text so far")
    echo: Literal["auto", "always", "never"] = Field(
        "auto", description="when a leading copy of the prompt is removed"
    )
    whole: Literal["auto", "stream", "plain"] = Field(
        "auto",
        description="how a whole answer is asked for: as a stream, plainly, or by what must be watched",
    )
    forward: tuple[str, ...] | Literal["all"] = Field(
        (), description="unknown fields of the client that are passed on, or `all`"
    )
    request_fields: RequestFields = Field(
        default_factory=dict, description="fields passed under another name, or not (null)"
    )
    environment: str | None = Field(None, min_length=1, description="Modal environment of the app")
    version: int | None = Field(None, ge=1, description="version of the deployment, if not the latest")
    options: Mapping[str, Any] = Field(
        default_factory=dict,
        description="with_options: gpu, timeout, max_containers, ...; makes containers of their own",
    )
    first_event_timeout: Seconds = Field(600, description="seconds until the first event, cold start too")
    idle_timeout: Seconds = Field(120, description="seconds between two events")

    @model_validator(mode="after")
    def _names_one_function(self) -> ModalConfig:
        if (self.function is None) == (self.class_ is None):
            raise ValueError("give either function, or class and method")
        if (self.class_ is None) != (self.method is None):
            raise ValueError("class and method belong together")
        if self.parameters and self.class_ is None:
            raise ValueError("parameters are those of a class; a function has none")
        return self

    @model_validator(mode="after")
    def _has_effect(self) -> ModalConfig:
        if self.pass_ == "prompt" and (self.request_fields or self.forward):
            raise ValueError(
                "pass: prompt gives the prompt alone; forward and request_fields need fields or dict"
            )
        if self.queue is not None and self.stream != "queue":
            raise ValueError("queue needs stream: queue")
        if unknown := sorted(self.options.keys() - OPTIONS):
            raise ValueError(f"options: no option {unknown[0]}; valid are {', '.join(sorted(OPTIONS))}")
        return self

    @model_validator(mode="after")
    def _can_be_called(self) -> ModalConfig:
        if find_spec("modal") is None:
            raise ValueError(INSTALL)
        return self

    @property
    def traits(self) -> Traits:
        forward = frozenset(self.forward) if self.forward != "all" else self.forward
        return Traits("prompt", self.stream != "none", self.whole, self.echo, forward, embeds=False)

    @property
    def sleeps(self) -> bool:
        return True

    @property
    def named(self) -> str:
        return f"{self.app}/{self.function or f'{self.class_}.{self.method}'}"

    @property
    def keys(self) -> str:
        return "app and function" if self.function else "app, class and method"

    @property
    def queue_name(self) -> str:
        return self.queue or f"{self.app[:57]}-pieces"  # as modal_backend names it; at most 64 characters

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is worth knowing of it and is no mistake."""
        if self.stream == "generator":
            return (
                f"{self.named} is a generator: it runs on after its client has left, Modal cannot cancel it",
            )
        if self.stream == "auto":
            return (f"if {self.named} is a generator, it runs on after its client has left",)
        return ()
