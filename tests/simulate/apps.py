"""Apps behind the simulated edge, scripted to the byte on a raw socket."""

from __future__ import annotations

import asyncio

from tests.upstreams.fake import LAST_CHUNK, Peer, Script, chunk, head, response

ANSWER = b'{"prompt": "hello world"}'


def whole() -> Script:
    """Answers at once."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(response(ANSWER, headers="x-app: yes\r\n"))
        await peer.gone()

    return script


def held(release: asyncio.Event) -> Script:
    """Answers once this is set; sees who leaves before."""

    async def script(peer: Peer) -> None:
        await peer.request()
        async with asyncio.TaskGroup() as group:
            gone = group.create_task(peer.gone())
            freed = group.create_task(release.wait())
            await asyncio.wait({gone, freed}, return_when=asyncio.FIRST_COMPLETED)
            if freed.done() and not gone.done():
                await peer.send(response(ANSWER))
            freed.cancel()
            await gone

    return script


def streamed(*gates: asyncio.Event) -> Script:
    """Sends a piece, and another after each of these, and the end; without gates it stays at the first."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(head() + chunk(b"data: 0\n\n"))
        for number, gate in enumerate(gates, 1):
            await gate.wait()
            await peer.send(chunk(b"data: %d\n\n" % number))
        if gates:
            await peer.send(LAST_CHUNK)
        await peer.gone()

    return script
