"""What the last requests to a model took, as the ledger knows it."""

from functools import partial
from pathlib import Path

from gateway.core.events import Usage
from gateway.ledger.queries import LOOKS, lately
from tests.ledger.books import NOON, books, record, served

HOUR = 3600.0


async def test_the_last_whole_answers_of_a_model_are_found(database_url: str, tmp_path: Path) -> None:
    async with books(database_url, tmp_path) as ledger:
        for number in range(LOOKS + 2):
            await served(ledger, f"old_{number}", NOON - number * 5 * HOUR, cost=number)
        for number in range(3):
            await served(ledger, f"new_{number}", NOON + 1 + number, cost=None, gpu=7, usage=Usage(1, number))
        ledger.observe(record("req_failed", NOON + 5, status=503, code="upstream_busy"))
        ledger.observe(record("req_left", NOON + 6, status=200, code=None, client_left=True))
        ledger.observe(record("req_uncounted", NOON + 7, usage=None))
        ledger.observe(record("req_other", NOON + 8, model="other"))
        await ledger.settle()

        async def found(most: int, model: str = "m") -> list[tuple[int | None, int | None, int]]:
            return await ledger.ask(partial(lately, model=model, most=most))

        new: list[tuple[int | None, int | None, int]] = [(None, 7, number) for number in (2, 1, 0)]
        assert await found(2) == new[:2]
        assert await found(100) == new + [(number, 2_000_000_000, 5) for number in range(LOOKS)]
        assert await found(100, "nobody's") == []
