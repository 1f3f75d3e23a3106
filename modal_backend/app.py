"""The Modal app of one deployment: ``MODAL_GATEWAY_MODEL=NAME_OR_FILE modal deploy -m modal_backend.app``.

Without the variable it is the preset ``demo``, which runs no model. The file's content travels in the image's
environment, where this module is imported again. Besides serving it has these, for ``modal run -m``:

``modal_backend.app::download``   put the weights on their volume, and print the commit that they are
``modal_backend.app::test``       ask the deployed model once
``modal_backend.app::benchmark``  ask it from several containers at once

Rule: thin. The classes below only call the steps of ``container`` and ``server_process`` from Modal's hooks,
and stay plain classes, so that they are made and served without Modal just as well.
"""

# No `from __future__ import annotations` here: Modal reads a class's annotations at run time.
import importlib
import time
import warnings
from pathlib import Path
from typing import Any

import modal

from modal_backend import probe, spawned
from modal_backend.container import Container, gpus_here, log, remarks, server_command
from modal_backend.contract import ASGIApp
from modal_backend.deployment import CACHE, MODELS, Deployment, When
from modal_backend.server_process import ServerProcess
from modal_backend.source import CARRIED, chosen

PORT = 8000  # of an inference server inside its container
DOWNLOAD = 4 * 3600  # seconds
MARGIN = 10  # seconds before Modal ends a container that does not start, in which it says why
UNREAD = 120.0  # seconds that a full partition is waited for; it holds 5,000 events (modal 1.6.4, Queue)
KEPT = 600  # seconds after the last event until Modal clears a partition that nobody read to its end
CACHES = {
    "HF_HOME": f"{MODELS}/huggingface",
    "VLLM_CACHE_ROOT": f"{CACHE}/vllm",
    "TORCHINDUCTOR_CACHE_DIR": f"{CACHE}/inductor",
    "TRITON_CACHE_DIR": f"{CACHE}/triton",
}
QUIET = {"DO_NOT_TRACK": "1"}  # else vLLM and the libraries of Hugging Face report that they are used
deployment, carried = chosen()


def image_of(deployment: Deployment, carried: str) -> modal.Image:
    """The image that the file describes; what changes most often comes last, so that the rest is kept."""
    wanted = deployment.image
    if wanted.base:
        made = modal.Image.from_registry(wanted.base, add_python=wanted.python).entrypoint([])
    else:
        made = modal.Image.debian_slim(python_version=wanted.python)
    if wanted.apt:
        made = made.apt_install(*wanted.apt)
    packages = list(wanted.pip)
    if deployment.serve == "server" and deployment.speaks == "prompt":
        packages.append("uvicorn")  # which a Web Function does without
    if packages:
        made = made.uv_pip_install(*packages)
    environment = {**CACHES, **QUIET, **wanted.env, CARRIED: carried}
    return made.env(environment).add_local_python_source("modal_backend")


def _tell() -> None:
    for remark in remarks(deployment, gpus_here(), Path(CACHES["HF_HOME"]) / "hub"):
        log.warning(remark)


class Backend:
    """A Web Function's container that speaks the prompt contract."""

    # A snapshot, if any, is taken between these two steps, which run in the order they are written in.
    @modal.enter(snap=deployment.snapshot != "none")
    def start(self) -> None:
        _tell()
        self.container = Container(deployment)
        if deployment.snapshot == "cpu":  # there is no GPU yet
            self.container.prepare()
        else:
            self.container.load()

    @modal.enter()
    async def warm(self) -> None:
        if deployment.snapshot == "cpu":
            self.container.load()
        await self.container.warm_up()
        self.container.watch()

    @modal.asgi_app(requires_proxy_auth=deployment.proxy_auth)
    def web(self) -> ASGIApp:
        return self.container.app()

    @modal.method()
    async def answer(self, body: dict[str, Any], partition: str | None = None) -> dict[str, Any] | None:
        """For calls through the SDK: the answer, or None once its events are in this partition."""
        if partition is None:
            return await spawned.whole(self.container.engine, body)

        async def write(events: list[bytes]) -> None:
            await pieces.put_many.aio(events, timeout=UNREAD, partition=partition, partition_ttl=KEPT)

        await spawned.streamed(self.container.engine, body, write)
        return None

    @modal.exit()
    async def stop(self) -> None:
        await self.container.close()


class Served:
    """A Modal Server's container: an inference server of its own behind Modal's proxy."""

    @modal.enter()
    def start(self) -> None:
        _tell()
        command = server_command(deployment, PORT, gpus_here() or deployment.gpus)
        self.server = ServerProcess(command, PORT, deployment.speaks)
        self.server.ready(max(deployment.startup_timeout - MARGIN, MARGIN))
        if deployment.engine != "embed":
            self.server.warm_up(deployment.name)
        self.server.watch()

    @modal.exit()
    def stop(self) -> None:
        self.server.stop()


app = modal.App(deployment.app_name)
pieces = modal.Queue.from_name(f"{deployment.app_name[:57]}-pieces", create_if_missing=True)
image = image_of(deployment, carried)
slim = modal.Image.debian_slim().env({CARRIED: carried}).add_local_python_source("modal_backend")
volumes: dict[Any, Any] = {
    path: modal.Volume.from_name(name, create_if_missing=True) for path, name in deployment.mounts.items()
}
secrets = [
    modal.Secret.from_name(secret.name, required_keys=list(secret.required_keys))
    for secret in deployment.secrets
]
hardware: dict[str, Any] = {
    "image": image,
    "gpu": list(deployment.gpu) if len(deployment.gpu) > 1 else "".join(deployment.gpu) or None,
    "cpu": deployment.cpu,
    "memory": deployment.memory,
    "ephemeral_disk": deployment.ephemeral_disk,
    "min_containers": deployment.min_containers,
    "max_containers": deployment.max_containers,
    "buffer_containers": deployment.buffer_containers,
    "scaledown_window": deployment.scaledown_window,
    "startup_timeout": deployment.startup_timeout,
    "volumes": volumes,
    "secrets": secrets,
}
region = list(deployment.region) or None

if deployment.serve == "web":
    BackendCls: modal.Cls = app.cls(
        **hardware,
        timeout=deployment.timeout,
        region=region,
        enable_memory_snapshot=deployment.snapshot != "none",
        experimental_options={"enable_gpu_snapshot": True} if deployment.snapshot == "gpu" else None,
    )(
        modal.concurrent(
            max_inputs=deployment.concurrency.max_inputs, target_inputs=deployment.concurrency.target_inputs
        )(Backend)
    )
else:
    ServedServer = app.server(
        **hardware,
        port=PORT,
        target_concurrency=deployment.concurrency.target_inputs,
        max_concurrency=deployment.concurrency.max_inputs,
        exit_grace_period=min(deployment.timeout, 3600),
        unauthenticated=not deployment.proxy_auth,
        compute_region=region,
    )(Served)


@app.function(image=image, volumes=volumes, secrets=secrets, timeout=DOWNLOAD)
def download() -> str:
    """Put the weights on their volume; the commit that they are."""
    if deployment.engine == "demo":
        raise ValueError("the demo has no weights to download")
    snapshot = importlib.import_module("huggingface_hub").snapshot_download
    commit = Path(snapshot(deployment.model, revision=deployment.revision)).name
    volumes[MODELS].commit()
    print(f"{deployment.model} is on the volume {deployment.mounts[MODELS]}\nrevision: {commit}")
    return commit


@app.function(image=slim, timeout=3600)
def measure(target: dict[str, Any], prompts: list[str], max_tokens: int) -> list[dict[str, Any]]:
    """One client of the benchmark."""
    return probe.run(probe.Target(**target), prompts, max_tokens)


@app.local_entrypoint()
def test(url: str = "", prompt: str = "Say hello.", max_tokens: int = 64) -> None:
    """Ask the deployed model once."""
    answer = probe.ask(probe.Target(**_target(url)), prompt, max_tokens)
    print(answer.text)
    print(f"first piece after {answer.first:.2f} s, {answer.pieces} pieces in {answer.total:.2f} s")


@app.local_entrypoint()
def benchmark(url: str = "", clients: int = 8, requests: int = 8, max_tokens: int = 128) -> None:
    """Ask the deployed model from ``clients`` containers, ``requests`` times each."""
    target = _target(url)
    numbers = [range(n * requests, (n + 1) * requests) for n in range(clients)]
    prompts = [[f"Count upwards from {number}." for number in each] for each in numbers]
    began = time.monotonic()
    answered = measure.map([target] * clients, prompts, [max_tokens] * clients)
    found = [one for part in answered for one in part]
    print(probe.summary(found, time.monotonic() - began))


def _target(url: str) -> dict[str, Any]:
    return {
        "url": url or _deployed_url(),
        "speaks": deployment.speaks,
        "model": deployment.name,
        "headers": probe.proxy_token(),
        "embeds": deployment.engine == "embed",
    }


def _deployed_url() -> str:
    if deployment.serve == "server":
        return str(modal.Server.from_name(deployment.app_name, "Served").get_url())
    return str(modal.Cls.from_name(deployment.app_name, "Backend")().web.get_web_url())


def _keep(containers: int) -> None:
    """From now on this many containers of the deployed model stay up."""
    if deployment.serve == "server":
        modal.Server.from_name(deployment.app_name, "Served").autoscaler.update(min_containers=containers)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, but an instance has no other way
        modal.Cls.from_name(deployment.app_name, "Backend")().update_autoscaler(min_containers=containers)


def warm_up() -> None:
    at = deployment.schedule.warm_up
    _keep(1 if at is None or at.containers is None else at.containers)


def scale_down() -> None:
    at = deployment.schedule.scale_down
    _keep(0 if at is None or at.containers is None else at.containers)


def _schedule(at: When) -> modal.Cron | modal.Period:
    if at.period is not None:
        return modal.Period(seconds=at.period)
    return modal.Cron(at.cron or "", timezone=at.timezone)


if deployment.schedule.warm_up is not None:
    warm_up_function = app.function(image=slim, schedule=_schedule(deployment.schedule.warm_up))(warm_up)
if deployment.schedule.scale_down is not None:
    scale_down_function = app.function(image=slim, schedule=_schedule(deployment.schedule.scale_down))(
        scale_down
    )
