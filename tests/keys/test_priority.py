"""The priority of a key, from the store to the queue of a model."""

import asyncio
from pathlib import Path

from tests.keys.gate import ADMIN, OWN, Gate, calling, configured, serving
from tests.serve.house import Visit, container, settings, soon


async def test_where_a_model_is_full_the_higher_priority_is_served_first(tmp_path: Path) -> None:
    served: list[str] = []
    turn = asyncio.Semaphore(0)

    async def script(visit: Visit) -> None:
        served.append(visit.json["prompt"])
        await turn.acquire()
        await visit.answer({"prompt": "done"})

    async with container(script) as behind:
        full = settings(behind.port, upstream={"max_concurrency": 1})["models"]
        async with (
            serving(configured(behind.port, models=full), tmp_path) as port,
            calling(port) as client,
            asyncio.TaskGroup() as group,
        ):
            here = Gate(port, behind, client, tmp_path)
            keys = {
                name: (await here.new(name, priority=first))[1] for name, first in (("low", -5), ("high", 5))
            }
            keys["first"] = keys["equal"] = OWN

            def ask(name: str) -> None:
                said = {"messages": [{"role": "user", "content": name}]}
                group.create_task(here.ask(keys[name], **said))

            async def waiting(count: int) -> None:
                while (await upstream(here))["waiting"] < count:
                    pass

            ask("first")
            await soon(behind.visited.wait())
            for number, name in enumerate(("low", "equal", "high"), 1):
                ask(name)
                await soon(waiting(number))
            for _ in range(4):
                turn.release()
    assert served == ["first", "high", "equal", "low"]


async def upstream(here: Gate) -> dict[str, int]:
    answer = await here.client.get("/admin/upstreams", headers={"x-api-key": ADMIN})
    [row] = answer.json()["data"]
    return dict(row)
