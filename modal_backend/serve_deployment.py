"""Run a deployment's container code without Modal: ``python -m modal_backend.serve_deployment NAME_OR_FILE``.

Rule: the same steps as on Modal, in the same order; only what serves the address differs. Without a name it
is the deployment that the environment carries, which is how a Modal Server's container starts it. One line on
standard output says when requests are accepted, as for ``python -m modal_backend``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from modal_backend.__main__ import _Server, listen
from modal_backend.container import DEAD, Container, install, server_command
from modal_backend.deployment import Deployment, DeploymentError
from modal_backend.engines import ENGINES
from modal_backend.source import chosen, load, on_this_machine


class _Warm(_Server):
    """Accepts no request before the engine has answered one."""

    def __init__(self, container: Container, host: str, port: int) -> None:
        super().__init__(container.engine, host, port)
        self._container = container

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self._container.warm_up()
        await super().startup(sockets)


def main(argv: Sequence[str] | None = None) -> None:
    options = _options(argv)
    if options.model and not Path(options.model).is_dir():  # else it is taken for a name on the hub
        sys.exit(f"--model: there is no folder {options.model}")
    try:
        deployment = load(options.deployment)[0] if options.deployment else chosen()[0]
    except DeploymentError as exc:
        sys.exit(str(exc))
    deployment = on_this_machine(deployment, options.engine, options.model)
    if deployment.speaks == "openai":
        _become(deployment, options.port)
    container = Container(deployment, local=options.deployment is not None)
    try:
        container.load()
    except (DeploymentError, OSError, ValueError) as exc:
        sys.exit(f"the engine {deployment.engine} cannot start: {exc}")
    try:
        listening = listen(options.host, options.port)
    except OSError as exc:
        sys.exit(f"cannot listen on {options.host} port {options.port}: {exc.strerror}")
    asyncio.run(_Warm(container, options.host, options.port).serve(sockets=[listening]))
    if container.engine.fault():  # which is why it has ended
        sys.exit(DEAD)


def _become(deployment: Deployment, port: int) -> None:
    """Turn this process into the inference server that the deployment runs."""
    command = server_command(deployment, port or 8000, deployment.gpus)
    try:
        os.execvp(command[0], command)
    except FileNotFoundError:
        sys.exit(
            f"the engine {deployment.engine} is the program {command[0]}, which is not installed here. "
            f"Install it ({install(deployment)}), or choose another with --engine"
        )


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m modal_backend.serve_deployment")
    add = parser.add_argument
    add("deployment", nargs="?", help="a preset's name or a file")
    add("--engine", choices=sorted(ENGINES), help="instead of the deployment's own")
    add("--model", help="a folder with weights, instead of the deployment's own")
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=0, help="0, the default, takes a free one and says which")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
