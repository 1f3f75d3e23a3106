"""The keys that every kind of upstream has: how many calls it takes, and what its app is like.

Rule: values only; `gateway/routing` applies them, whatever the kind. Times are in seconds.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Seconds: TypeAlias = Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)]


class Limits(BaseModel):
    """Keys of every kind."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_concurrency: int = Field(100, ge=1, description="calls at once")
    max_queue: int = Field(1000, ge=0, description="calls that may wait for a slot")
    queue_timeout: Seconds = Field(600, description="seconds a call may wait for a slot")
    inputs_per_container: int = Field(32, ge=1, description="calls one container takes at once")
    max_containers: int = Field(1, ge=1, description="containers the app may have")
    scaledown_window: int = Field(60, ge=1, description="seconds an idle container stays")

    @property
    def room(self) -> int | None:
        """Calls that all containers take at once, if the configuration says anything about that."""
        said = {"inputs_per_container", "max_containers"} & self.model_fields_set
        return self.inputs_per_container * self.max_containers if said else None

    @property
    def sleeps(self) -> bool:
        """Whether idle containers are known to be stopped."""
        return "scaledown_window" in self.model_fields_set

    @property
    def refuses(self) -> bool:
        """Whether its edge is known to refuse calls while there is no container."""
        return False
