"""Serve an engine on this machine: ``python -m modal_backend [--engine demo] [--model PATH] [--port 0]``.

Rule: exactly one line goes to standard output, when requests are accepted: ``{"event": "ready", "url": ...,
"port": ..., "engine": ..., "pid": ...}``. Logs go to standard error. With ``--with-parent`` it exits when its
standard input ends, which a pipe does when the process that holds the other end is gone, however that came
about; when its engine is dead it exits with status 70. Needs uvicorn; knows nothing about Modal.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import socket
import sys
import threading
from collections.abc import Sequence
from typing import Any

import uvicorn

from modal_backend.contract import contract_app
from modal_backend.engine import Engine
from modal_backend.engines import ENGINES, make_engine

KEEP_ALIVE = 75  # seconds an idle connection stays open, so that a gateway finds its pooled ones alive
DEAD = 70  # exit status, for whoever starts another
DRAIN = 3  # seconds that running requests are given at the end


class _Server(uvicorn.Server):
    """Tells when it is ready, and gives the engine back before it ends."""

    def __init__(self, engine: Engine, host: str, port: int) -> None:
        app = contract_app(engine)
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                ws="none",
                log_level="warning",
                access_log=False,
                timeout_keep_alive=KEEP_ALIVE,
                timeout_graceful_shutdown=DRAIN,
            )
        )
        self._engine = engine

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        port = sockets[0].getsockname()[1] if sockets else self.config.port
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        ready = {"event": "ready", "url": f"http://{host}:{port}", "port": port}
        print(json.dumps({**ready, "engine": self._engine.about.name, "pid": os.getpid()}), flush=True)

    async def on_tick(self, counter: int) -> bool:
        if fault := self._engine.fault():
            logging.getLogger("modal_backend").critical("the engine is dead, so this process ends: %s", fault)
            self.should_exit = True  # answers that run are given the time to say so
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # A request that is cut off from here on is no error; uvicorn would log a traceback for each.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        await super().shutdown(sockets)
        await self._engine.close()  # not after serve(), which ends by raising the signal that stopped it


def main(argv: Sequence[str] | None = None) -> None:
    options = _options(argv)
    given = {"delay": options.delay, "model": options.model}
    arguments = {**options.arguments, **{name: value for name, value in given.items() if value is not None}}
    try:
        engine = make_engine(options.engine, arguments)
    except (ImportError, OSError, ValueError) as exc:
        sys.exit(f"the engine {options.engine} cannot start: {exc}")
    server = _Server(engine, options.host, options.port)
    if options.with_parent:
        threading.Thread(target=_leave_with_parent, args=(server,), daemon=True).start()
    try:
        listening = listen(options.host, options.port)
    except OSError as exc:
        sys.exit(f"cannot listen on {options.host} port {options.port}: {exc.strerror}")
    asyncio.run(server.serve(sockets=[listening]))
    if engine.fault():
        sys.exit(DEAD)


def listen(host: str, port: int) -> socket.socket:
    """A bound TCP socket; raises ``OSError``.

    It names its protocol, because asyncio turns off Nagle's algorithm only for sockets that do; with it, and
    headers and body sent one after the other, each answer would wait 40 ms for the client's acknowledgement.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((host, port))
    return listening


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m modal_backend", description="Serve an engine locally.")
    add = parser.add_argument
    add("--engine", choices=sorted(ENGINES), default="demo", help="default: demo, which runs no model")
    add("--model", help="folder or hub name, for engines that load a model")
    add("--arguments", type=_object, default={}, help='more engine arguments: \'{"dtype": "bfloat16"}\'')
    add("--host", default="127.0.0.1", help="default: 127.0.0.1")
    add("--port", type=int, default=0, help="0, the default, takes a free one and says which")
    add("--delay", type=_seconds, help="seconds between two pieces of the demo engine")
    add("--with-parent", action="store_true", help="exit when standard input ends")
    return parser.parse_args(argv)


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("must be a JSON object")
    return value


def _seconds(text: str) -> float:
    if not 0 <= (seconds := float(text)) <= 60:
        raise argparse.ArgumentTypeError("must be from 0 to 60")
    return seconds


def _leave_with_parent(server: uvicorn.Server) -> None:
    while os.read(sys.stdin.fileno(), 4096):  # sys.stdin's own lock must not be held at interpreter exit
        pass
    server.force_exit = True  # nobody is left to drain for
    server.should_exit = True


if __name__ == "__main__":
    main()
