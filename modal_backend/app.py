"""The Modal app: one model container that speaks the prompt contract. ``modal deploy modal_backend/app.py``.

Today's only engine is the demo, which runs no model: deployed as it stands, this app answers by fixed rules
from a GPU container, to try the whole way to Modal and back. These variables in the environment of
``modal deploy`` set what differs between deployments; they are kept in the image, where this file is imported
again:

``MODAL_BACKEND_APP``
    The app's name, ``modal-gateway``. The URL is ``https://<workspace>--<app>-backend-web.modal.run``.
``MODAL_BACKEND_ENGINE``, ``MODAL_BACKEND_ARGUMENTS``
    The engine, ``demo``, and its arguments as a JSON object, ``{}``.
``MODAL_BACKEND_GPU``
    One of Modal's GPU strings, ``L4``; or ``none``, which is enough for the demo and costs less.
``MODAL_BACKEND_SECRET``
    A Modal secret that holds ``HF_TOKEN``, ``huggingface-secret``; or ``none``. To create it:
    ``modal secret create huggingface-secret HF_TOKEN=hf_...``

Rule: thin. The class below only joins an engine to Modal, and stays a plain class, so that it is made and
served without Modal just as well. Callers need a proxy token of the workspace.
"""

# No `from __future__ import annotations` here: Modal reads a class's annotations at run time.
import json
import os

import modal

from modal_backend.contract import ASGIApp, contract_app
from modal_backend.engine import Engine
from modal_backend.engines import make_engine

SETTINGS = {
    "MODAL_BACKEND_APP": "modal-gateway",
    "MODAL_BACKEND_ENGINE": "demo",
    "MODAL_BACKEND_ARGUMENTS": "{}",
    "MODAL_BACKEND_GPU": "L4",
    "MODAL_BACKEND_SECRET": "huggingface-secret",
}
setting = {name: os.environ.get(name, default) for name, default in SETTINGS.items()}

MODELS = "/models"  # where the volume with weights is mounted
PACKAGES: dict[str, tuple[str, ...]] = {"demo": ()}
"""What an engine needs in its image. The contract itself needs the standard library alone."""

# What the engine batches without queueing; above the target Modal starts another container.
MAX_INPUTS, TARGET_INPUTS = 32, 24
TIMEOUT = 3600  # seconds: the longest generation. Modal ends a stream, too, when it is over
STARTUP_TIMEOUT = 900  # seconds to load weights and compile
SCALEDOWN_WINDOW = 300  # seconds that an idle container keeps its GPU

image = (
    modal.Image.debian_slim(python_version="3.12")
    .uv_pip_install(*PACKAGES[setting["MODAL_BACKEND_ENGINE"]])
    .env({**setting, "HF_HOME": f"{MODELS}/huggingface"})
    .add_local_python_source("modal_backend")  # `modal deploy` of a file carries that file alone
)


class Backend:
    """One container: makes the engine when it starts, serves it, and closes it at the end."""

    @modal.enter()
    def start(self) -> None:
        arguments = json.loads(setting["MODAL_BACKEND_ARGUMENTS"])
        self.engine: Engine = make_engine(setting["MODAL_BACKEND_ENGINE"], arguments)

    @modal.asgi_app(requires_proxy_auth=True)
    def web(self) -> ASGIApp:
        return contract_app(self.engine)

    @modal.exit()
    async def stop(self) -> None:
        await self.engine.close()


def _unless_none(value: str) -> str | None:
    return None if value in ("", "none") else value


gpu = _unless_none(setting["MODAL_BACKEND_GPU"])
secret = _unless_none(setting["MODAL_BACKEND_SECRET"])

app = modal.App(setting["MODAL_BACKEND_APP"])

BackendCls: modal.Cls = app.cls(
    image=image,
    gpu=gpu,
    volumes={MODELS: modal.Volume.from_name("modal-gateway-models", create_if_missing=True)},
    secrets=[modal.Secret.from_name(secret, required_keys=["HF_TOKEN"])] if secret else [],
    timeout=TIMEOUT,
    startup_timeout=STARTUP_TIMEOUT,
    scaledown_window=SCALEDOWN_WINDOW,
)(modal.concurrent(max_inputs=MAX_INPUTS, target_inputs=TARGET_INPUTS)(Backend))
