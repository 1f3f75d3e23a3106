"""An application on `gateway.http.server`, treated badly: `-m tests.cli.victim HEAD STALL DRAIN LINGER`.

The arguments are seconds. Prints its port once it listens.
"""

import asyncio
import sys

from gateway.http.connection import Connection, Deadlines
from gateway.http.exchange import Message, Receive, Scope, Send
from gateway.http.server import Running, configure, listen, stoppable

BIG = 64  # MiB: more than any socket buffer takes


class Victim:
    def __init__(self) -> None:
        self.left = asyncio.Event()  # somebody left /big before its end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return
        await getattr(self, scope["path"].strip("/").replace("-", "_") or "echo")(receive, send)

    async def echo(self, receive: Receive, send: Send) -> None:
        size = 0
        while True:
            message = await receive()
            size += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        await send(start(200))
        await send({"type": "http.response.body", "body": b"%d bytes" % size})

    async def refuse(self, receive: Receive, send: Send) -> None:
        """Answers without reading the body."""
        await send(start(401, (b"content-length", b"2")))
        await send({"type": "http.response.body", "body": b"no"})

    async def begin(self, receive: Receive, send: Send) -> None:
        """Begins, and ends only when the client is gone."""
        await send(start(200))
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    async def hang(self, receive: Receive, send: Send) -> None:
        """Takes the request, says so to whoever asks /left, and never answers."""
        self.left.set()
        await asyncio.Event().wait()

    async def big(self, receive: Receive, send: Send) -> None:
        await send(start(200))
        try:
            for _ in range(BIG):
                await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})
        finally:
            self.left.set()
        await send({"type": "http.response.body"})

    async def huge(self, receive: Receive, send: Send) -> None:
        """The answer is complete at once; most of it waits in the server."""
        await send(start(200))
        await send({"type": "http.response.body", "body": bytes(BIG << 20)})

    async def until_left(self, receive: Receive, send: Send) -> None:
        await self.left.wait()
        await self.echo(receive, send)

    async def cut(self, receive: Receive, send: Send) -> None:
        await send(start(200))
        await send({"type": "http.response.body", "body": b"not all", "more_body": True})

    async def bug(self, receive: Receive, send: Send) -> None:
        try:
            raise KeyError("a first secret")
        except KeyError as exc:
            raise ValueError("a second secret") from exc

    async def forgotten(self, receive: Receive, send: Send) -> None:
        async def fail() -> None:
            raise ValueError("a third secret")

        task = asyncio.get_running_loop().create_task(fail())
        await asyncio.wait([task])
        del task
        await self.echo(receive, send)


def start(status: int, *headers: tuple[bytes, bytes]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


class Hurried(Connection):
    pass


def main() -> None:
    head, stall, drain, linger = map(float, sys.argv[1:])
    Hurried.deadlines = Deadlines(head, stall, linger)
    sock = listen("127.0.0.1", 0)
    config = configure(stoppable(Victim()), drain)
    config.http = Hurried
    Running(config, sock, lambda: print(sock.getsockname()[1], flush=True)).run()


if __name__ == "__main__":
    main()
