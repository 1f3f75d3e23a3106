"""What planning a configuration does to the upstreams that serve: nothing."""

from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from gateway.fleet import Fleet
from gateway.settings import ConfigError, Settings, settings_from

ONE = {"one": {"upstream": {"kind": "demo"}}}
TWO = {**ONE, "two": {"upstream": {"kind": "demo"}}}
REFUSED = {**ONE, "two": {"upstream": {"kind": "demo"}, "tokenizer": "nowhere"}}


def configured(models: dict[str, Any], *, show_wire: bool) -> Settings:
    return settings_from({"models": models, "server": {"show_wire": show_wire}}, {})


def begun(*, show_wire: bool) -> Fleet:
    fleet = Fleet(Path(), monotonic, show_wire=show_wire)
    fleet.adopt(fleet.plan(configured(ONE, show_wire=show_wire)))
    return fleet


@pytest.mark.parametrize("show_wire", [False, True])
def test_what_serves_goes_on_printing_or_not_whatever_is_planned(show_wire: bool) -> None:
    fleet = begun(show_wire=show_wire)
    [target] = fleet.targets
    before = target.send
    assert (before == target.inner.events) is not show_wire
    for later in (True, False):
        fleet.plan(configured(TWO, show_wire=later))
        with pytest.raises(ConfigError):
            fleet.plan(configured(REFUSED, show_wire=later))
        assert target.send == before


@pytest.mark.parametrize("show_wire", [False, True])
def test_what_a_later_configuration_brings_is_printed_as_the_first_one_said(show_wire: bool) -> None:
    fleet = begun(show_wire=show_wire)
    fleet.adopt(fleet.plan(configured(TWO, show_wire=not show_wire)))
    assert [(target.send == target.inner.events) for target in fleet.targets] == [not show_wire] * 2
