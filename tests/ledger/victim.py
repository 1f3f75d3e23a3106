"""Servers with a ledger, to be killed: ``python -m tests.ledger.victim URL FOLDER``.

For each line on standard input another process begins to serve, and ``PID PORT`` is printed. A client sends a
request's id and a line end; it gets a byte once the request has begun, and another once it ended.
"""

import asyncio
import os
import random
import signal
import sys
from importlib import import_module
from pathlib import Path

from gateway.ledger import Idle, Ledger
from tests.ledger.books import NOON, intent, record, store


async def serve(url: str, folder: Path) -> None:
    ledger = Ledger(store(url, folder, fsync="batch"), folder)
    await ledger.start()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            id = line.decode().strip()
            await ledger.begin(intent(id))
            writer.write(b"+")
            await asyncio.sleep(random.random() / 100)
            ledger.observe(record(id))
            ledger.idle([Idle(f"{id}-idle", NOON, "k1", "anna", None, "m", "u", 1, "estimated")])
            writer.write(b"=")

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(os.getpid(), server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    url, folder = sys.argv[1], Path(sys.argv[2])
    import_module("gateway.ledger.writer")  # so that no child has to
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the killed
    for _ in sys.stdin:
        if os.fork() == 0:
            asyncio.run(serve(url, folder))


if __name__ == "__main__":
    main()
