"""The models of a configuration as what can be called, from one configuration to the next.

Rule: an upstream whose name and entry did not change stays the same object, with its connections, its slots
and what it knows of its containers. Planning changes nothing and may be done in a thread; adopting cannot
fail.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from gateway.models import Making, deployment
from gateway.routing.routes import Deployment, Routes
from gateway.routing.target import Target
from gateway.settings import Settings
from gateway.upstreams.kinds import Config
from gateway.upstreams.wire import secrets_in, shown


class Member(NamedTuple):
    """One upstream: the entry it was made from, and the model it answers for."""

    config: Config
    model: Deployment
    target: Target


@dataclass(slots=True, frozen=True)
class Plan:
    """All models of one configuration, and their upstreams by the names of both."""

    routes: Routes
    members: Mapping[tuple[str, str], Member]
    secrets: frozenset[str] = frozenset()  # what may not be printed


class Fleet:
    """``folder`` is where relative paths start; ``clock`` gives monotonic seconds.

    ``workers``: processes with a fleet like this one. ``show_wire``: whether calls are printed, of upstreams
    that a later configuration brings too.
    """

    def __init__(
        self, folder: Path, clock: Callable[[], float], workers: int = 1, *, show_wire: bool = False
    ) -> None:
        self._folder = folder
        self._making = Making(clock, workers=workers)
        self._show_wire = show_wire
        self._secrets: frozenset[str] = frozenset()
        self._members: Mapping[tuple[str, str], Member] = {}

    @property
    def members(self) -> Sequence[Member]:
        return tuple(self._members.values())

    @property
    def targets(self) -> Sequence[Target]:
        return [member.target for member in self._members.values()]

    def plan(self, settings: Settings) -> Plan:
        """Raises ``ConfigError`` that names the key."""
        models: list[Deployment] = []
        members: dict[tuple[str, str], Member] = {}
        for name, entry in settings.models.items():
            making = self._making._replace(known=partial(self._known, name))
            models.append(made := deployment(name, entry, self._folder, making))
            for config, target in zip(entry.upstreams, made.upstreams, strict=True):
                members[name, target.name] = Member(config, made, target)
                if self._show_wire and self._known(name, target.name, config) is None:
                    target.send = shown(target.inner, lambda: self._secrets, _on_standard_error)
        secrets = secrets_in(settings) if self._show_wire else frozenset()
        return Plan(Routes(models, settings.default_model), members, secrets)

    def adopt(self, plan: Plan) -> list[Member]:
        """This is the fleet from now on; the members that are no longer of it."""
        kept = {id(member.target) for member in plan.members.values()}
        gone = [member for member in self._members.values() if id(member.target) not in kept]
        self._members = plan.members
        self._secrets |= plan.secrets  # what was one may still be in use
        return gone

    def _known(self, model: str, name: str, config: Config) -> Target | None:
        known = self._members.get((model, name))
        return known.target if known is not None and known.config == config else None


def _on_standard_error(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
