"""What every budget allows, and what is spent of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.keys.gate import ADMIN, OWN, Gate, gate

Budgets = dict[tuple[str, str], list[dict[str, Any]]]
DAY = {"tokens": 1000, "per": "day"}
TOP = {
    "auth": {"keys": [{"name": "own", "key": OWN, "team": "t", "budgets": [DAY, {"dollars": 2}]}]},
    "teams": {"t": {"budgets": [{"gpu_seconds": 60, "per": "week"}]}, "poor": {}},
}


async def shown(here: Gate) -> Budgets:
    answer = await here.client.get("/admin/budgets", headers={"x-api-key": ADMIN})
    assert answer.status_code == 200, answer.text
    return {(row["kind"], row["name"]): row["budgets"] for row in answer.json()["data"]}


async def once(here: Gate, condition: Callable[[Budgets], bool]) -> Budgets:
    async with asyncio.timeout(20):
        while not condition(found := await shown(here)):
            pass
    return found


@pytest.mark.parametrize("keeps", [True, False])
async def test_what_is_spent_of_each_budget_is_told(tmp_path: Path, keeps: bool) -> None:
    async with gate(tmp_path, keeps=keeps, **TOP) as here:
        before = await shown(here)
        assert before == {
            ("key", "own"): [
                {"per": "day", "unit": "tokens", "limit": 1000, "used": 0},
                {"per": "month", "unit": "dollars", "limit": 2.0, "used": 0.0},
            ],
            ("team", "t"): [{"per": "week", "unit": "gpu_seconds", "limit": 60.0, "used": 0.0}],
        }
        assert (await here.ask(OWN)).status_code == 200
        after = await once(here, lambda found: bool(found["key", "own"][0]["used"]))
        assert after["key", "own"][0]["used"] == 2
        assert 0 < after["team", "t"][0]["used"] < 60


async def test_budgets_of_stored_keys_are_those_of_the_living(tmp_path: Path) -> None:
    async with gate(tmp_path) as here:
        id, secret = await here.new("ann", budgets=[{"tokens": 10, "per": "total"}])
        await here.new("unbound")
        assert (await here.ask(secret)).status_code == 200
        found = await once(here, lambda found: bool(found["key", "ann"][0]["used"]))
        assert list(found) == [("key", "ann")]
        rows = (await here.client.get("/admin/budgets", headers={"x-api-key": ADMIN})).json()["data"]
        assert rows[0]["id"] == id
        assert (await here.admin("DELETE", "/ann")).status_code == 200
        assert await shown(here) == {}
