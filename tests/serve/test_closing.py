"""The books of a request are closed before its client has the whole answer, so that a kill loses nothing."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from gateway.core.events import Finish, Text
from gateway.http.exchange import Message
from gateway.ledger.rows import Idle, Intent
from gateway.limits.leases import Leases
from gateway.limits.memory import Memory
from gateway.limits.scopes import Scopes
from gateway.record import Record
from gateway.serve.books import Books
from gateway.world import World
from tests.serve.house import Desk, Line, Scripted, deployed, soon


class Seen(Line):
    """A client and a ledger: what each heard, in order."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body=body)
        self.heard: list[Any] = []

    async def send(self, message: Message) -> None:
        await super().send(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.heard.append("all")

    async def begin(self, intent: Intent) -> None:
        self.heard.append("begun")

    def observe(self, record: Record, content: Mapping[str, Any] | None = None) -> None:
        self.heard.append((record.status, record.finish, record.code))

    def idle(self, rows: Sequence[Idle]) -> None:
        raise AssertionError


async def nothing(kind: str, id: str, since: float) -> Any:
    raise AssertionError


@pytest.mark.parametrize(
    ("fields", "upstream", "heard"),
    [
        ({}, [[Text("hello"), Finish("stop")]], ["begun", (200, "stop", None), "all"]),
        ({"stream": True}, [[Text("hello")], [Finish("stop")]], ["begun", (200, "stop", None), "all"]),
        ({"model": "none"}, [], [(404, None, "model_not_found"), "all"]),
    ],
    ids=["whole", "streamed", "refused"],
)
async def test_what_a_client_has_whole_is_written_down(
    fields: dict[str, Any], upstream: list[Any], heard: list[Any]
) -> None:
    desk = Desk(deployed(Scripted("m", upstream)))
    ask = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    line = Seen(json.dumps(ask).encode())
    world = World(time=lambda: 0.0, monotonic=lambda: 0.0, new_id=lambda: "0" * 24)
    leases = Leases(Memory(world.monotonic, world.time), Scopes({}), nothing, world.time)
    desk.service.books = Books(leases, world, line)
    await soon(desk.take(line))
    assert line.heard == heard
