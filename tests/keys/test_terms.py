"""What a key's fields must be, wherever they are written."""

from typing import Any

import pytest

from gateway.settings import ConfigError, settings_from
from tests.keys.gate import configured


def read(**fields: Any) -> Any:
    """The key of a configuration that has these fields."""
    key = {"name": "own", "key": "sk-own", **fields}
    return settings_from(configured(1, auth={"keys": [key]}), {}).auth.keys[0]


def test_a_file_may_take_numbers_and_switches_from_variables_which_are_text() -> None:
    limits = {"requests_per_minute": "5"}
    key = read(limits=limits, budgets=[{"dollars": "2.5"}], priority="-3", disabled="yes")
    assert (key.limits.requests_per_minute, key.budgets[0].dollars) == (5, 2.5)
    assert (key.priority, key.disabled) == (-3, True)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"limits": {"requests_per_minute": True}}, "requests_per_minute: must not be true or false"),
        ({"budgets": [{"dollars": True}]}, "dollars: must not be true or false"),
        ({"expires": 1900000000}, "expires: must be a time with its zone"),
        ({"expires": 1.9e12}, "expires: must be a time with its zone"),
    ],
)
def test_what_a_file_can_only_mean_by_mistake_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read(**fields)
