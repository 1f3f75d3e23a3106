"""One container's life, wherever it runs: make the engine, warm it up, serve it, close it.

Rule: no request is taken before the engine has answered one of our own. A dead engine ends the process, so
that whatever runs it starts another. Knows nothing about Modal, which calls these steps from its own hooks.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import shlex
import threading
from collections.abc import Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

from modal_backend.contract import ASGIApp, contract_app
from modal_backend.deployment import Deployment, DeploymentError
from modal_backend.engine import Embeds, Engine, EngineDead, Generates, Request
from modal_backend.engines import make_engine

WATCHED = 1.0  # seconds between two looks at the engine's health
DRAIN = 1.0  # seconds that running answers get to say that the engine is dead
DEAD = 70  # exit status of a process whose engine died
WARM_UP = Request(prompt="Hello", max_tokens=4)
LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "transformers": ("torch", "transformers"),
    "embed": ("torch", "transformers"),
}
"""What takes long to import, and may be imported before there is a GPU."""

log = logging.getLogger("modal_backend")


class Container:
    """The steps in their order: ``prepare``, ``load``, ``warm_up``, ``app``, ``close``."""

    engine: Engine

    def __init__(self, deployment: Deployment, *, local: bool = False) -> None:
        """``local``: a person started it on this machine, who can install what it lacks."""
        self.deployment = deployment
        self._local = local
        self._closed = threading.Event()

    def prepare(self) -> None:
        """Import what is heavy. A snapshot without a GPU is taken after this."""
        for name in LIBRARIES.get(self.deployment.engine, ()):
            importlib.import_module(name)

    def load(self) -> None:
        """Make the engine, weights and all. Raises ``DeploymentError`` where a package is missing."""
        try:
            self.engine = make_engine(self.deployment.engine, engine_arguments(self.deployment))
        except ModuleNotFoundError as exc:
            raise DeploymentError(f"there is no module {exc.name} here: {self._advice(exc)}") from exc

    async def warm_up(self) -> None:
        """Answer a request, so that the first caller does not pay for it. Raises what the engine raises."""
        if isinstance(self.engine, Generates):
            async with aclosing(self.engine.generate(WARM_UP)) as pieces:
                async for _ in pieces:
                    pass
        elif isinstance(self.engine, Embeds):
            await self.engine.embed((WARM_UP.prompt,))
        if fault := self.engine.fault():
            raise EngineDead(fault)

    def app(self) -> ASGIApp:
        return contract_app(self.engine)

    def watch(self, dead: Callable[[str], None] | None = None) -> None:
        """From now on look at the engine's health. When it is gone call ``dead``, or end the process."""
        threading.Thread(target=self._watch, args=(dead or _end_process,), daemon=True).start()

    async def close(self) -> None:
        self._closed.set()
        await self.engine.close()

    def _advice(self, missing: ModuleNotFoundError) -> str:
        if not self._local:
            return f"add its package to image.pip of {self.deployment.name}"
        return f"{install(self.deployment, missing.name)}, or choose another engine with --engine"

    def _watch(self, dead: Callable[[str], None]) -> None:
        while not self._closed.wait(WATCHED):
            if fault := self.engine.fault():
                self._closed.wait(DRAIN)
                dead(fault)
                return


def _end_process(fault: str) -> None:
    log.critical("the engine is dead, so this container ends: %s", fault)
    os._exit(DEAD)  # the main thread may hang in the dead engine


def install(deployment: Deployment, module: str | None = None) -> str:
    """The command that installs what the deployment's engine needs here, ``module`` at least."""
    listed, own = deployment.image.pip, LIBRARIES.get(deployment.engine, (deployment.engine,))
    names = {re.split(r"[^\w.-]", each)[0].replace("-", "_") for each in listed}
    if names.isdisjoint(own):  # the list is that of another engine
        listed, names = own, set(own)
    missing = module.partition(".")[0] if module else None
    more = () if missing is None or missing in names else (missing,)
    return f"pip install {shlex.join([*listed, *more])}"


def gpus_here(devices: Path = Path("/dev")) -> int:
    """GPUs of this machine, by their device files, so that no library must be imported to count them."""
    return len(list(devices.glob("nvidia[0-9]*")))


def remarks(deployment: Deployment, gpus: int, hub: Path) -> list[str]:
    """What a person should know who reads the container's log. ``hub`` is the folder of downloaded models."""
    found = []
    if deployment.gpu and not gpus:
        found.append(
            f"no GPU was found, though `gpu` asks for {' or '.join(deployment.gpu)}: the model runs on the "
            "CPU or not at all. If image.base replaces the drivers' libraries, choose another"
        )
    on_the_hub = deployment.engine != "demo" and not deployment.model.startswith("/")  # else it is a folder
    if on_the_hub and not (hub / f"models--{deployment.model.replace('/', '--')}").exists():
        found.append(
            f"the weights of {deployment.model} are not on the volume, so every start may download them: "
            f"run `MODAL_GATEWAY_MODEL={deployment.name} modal run -m modal_backend.app::download` once"
        )
    return found


def engine_arguments(deployment: Deployment) -> dict[str, Any]:
    """What the engine is made with: the file's `arguments`, and the facts that it states elsewhere."""
    if deployment.engine == "demo":
        return dict(deployment.arguments)
    facts: dict[str, Any] = {"model": deployment.model, "revision": deployment.revision}
    if deployment.context_length is not None:
        facts["context_length"] = deployment.context_length
    return {**facts, **deployment.arguments}


def server_command(deployment: Deployment, port: int, gpus: int) -> list[str]:
    """What runs behind a Modal Server: `vllm serve`, SGLang, or this package's own server.

    ``gpus`` is how many this container has, which a list of fallbacks leaves open.
    """
    listens = ["--host", "0.0.0.0", "--port", str(port)]
    revision = ["--revision", deployment.revision]
    if deployment.engine == "vllm":
        start = ["vllm", "serve", deployment.model, *revision, "--served-model-name", deployment.name]
        facts = {"max_model_len": deployment.context_length, "tensor_parallel_size": max(gpus, 1)}
    elif deployment.engine == "sglang":
        start = ["python", "-m", "sglang.launch_server", "--model-path", deployment.model, *revision]
        start += ["--served-model-name", deployment.name]
        facts = {"context_length": deployment.context_length, "tp_size": max(gpus, 1)}
    else:
        return ["python", "-m", "modal_backend.serve_deployment", *listens]
    return [*start, *listens, *_flags({**facts, **deployment.arguments})]


def _flags(arguments: Mapping[str, Any]) -> list[str]:
    """`{max_model_len: 4096, trust_remote_code: true}` as options; false and null are left out."""
    flags: list[str] = []
    for name, value in arguments.items():
        option = "--" + name.replace("_", "-")
        if value is True:
            flags.append(option)
        elif value is not None and value is not False:
            flags += [option, json.dumps(value) if isinstance(value, dict | list) else str(value)]
    return flags
