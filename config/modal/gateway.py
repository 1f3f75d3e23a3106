"""The gateway itself on Modal, as a Modal Server. From a checkout:

    modal secret create modal-gateway MODAL_GATEWAY_ADMIN_KEY=... GATEWAY_METRICS_KEY=... \\
        GATEWAY_DATABASE_URL=postgresql://... GATEWAY_REDIS_URL=rediss://... \\
        MODAL_KEY=wk-... MODAL_SECRET=ws-...
    modal deploy config/modal/gateway.py

``modal deploy`` prints the address, which clients use with ``/v1`` behind it. ``gateway.yaml`` beside this
file is the configuration. PostgreSQL and Redis are yours: containers share nothing else, and what lies on
their disks goes with them. A volume is no place for the ledger, since SQLite's files must not be written by
two containers.

Rule: thin. The class starts `modal-gateway serve`, waits until it is ready and ends it; it stays a plain
class, so that the same runs without Modal.
"""

# No `from __future__ import annotations` here: Modal reads a class's annotations at run time.
import http.client
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import modal

PORT = 8000
STARTUP = 120  # seconds; the first start after an update brings the database up to date
DRAIN = 20  # seconds, as `server.drain_timeout` of gateway.yaml; Modal kills 30 seconds after the signal
POLL = 0.1  # seconds between two looks at a gateway that starts
# This module's name is `gateway` too, so the package lies in another folder than Modal puts modules in.
HOUSE = Path(__file__).resolve().parents[2] if modal.is_local() else Path("/app")
SETTINGS = "config/modal/gateway.yaml"
REQUIRED = ["MODAL_GATEWAY_ADMIN_KEY", "GATEWAY_METRICS_KEY", "GATEWAY_DATABASE_URL", "GATEWAY_REDIS_URL"]
LEFT_OUT = ["**/__pycache__", "**/*.db", "**/*.log", "**/.env*"]

# What changes most often comes last, so that the rest is kept. The lock has a hash for each package.
image = (
    modal.Image.debian_slim(python_version="3.13")
    .pip_install_from_requirements(
        str(HOUSE / "requirements-modal.lock"), extra_options="--require-hashes --no-deps"
    )
    .env({"GATEWAY_SPOOL": "/var/spool/modal-gateway"})
    .add_local_file(HOUSE / SETTINGS, f"/app/{SETTINGS}")
    .add_local_dir(HOUSE / "modal_backend/presets", "/app/modal_backend/presets", ignore=LEFT_OUT)
    .add_local_dir(HOUSE / "gateway", "/app/gateway", ignore=LEFT_OUT)
)
app = modal.App("modal-gateway")


class Gateway:
    """One gateway in one container."""

    @modal.enter()
    def start(self) -> None:
        command = ["serve", "--config", SETTINGS, "--host", "0.0.0.0", "--port", str(PORT)]
        self.stopping = threading.Event()
        self.process = subprocess.Popen([sys.executable, "-m", "gateway", *command], cwd=HOUSE)
        ends = time.monotonic() + STARTUP
        while not ready(PORT):
            if (status := self.process.poll()) is not None:
                raise RuntimeError(f"the gateway ended with status {status} before it was ready")
            if time.monotonic() > ends:
                self.stop()
                raise RuntimeError(f"the gateway was not ready after {STARTUP} seconds")
            time.sleep(POLL)
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self) -> None:
        """If the gateway ends by itself, its container ends with it, so that another one is started."""
        status = self.process.wait()
        if not self.stopping.is_set():
            os._exit(status or 1)

    @modal.exit()
    def stop(self) -> None:
        """Open requests get the gateway's drain; its rows go to the database before it ends."""
        self.stopping.set()
        self.process.terminate()
        try:
            self.process.wait(DRAIN + 8)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):  # not listening yet
        return False
    finally:
        connection.close()


GatewayServer = app.server(
    image=image,
    secrets=[modal.Secret.from_name("modal-gateway", required_keys=REQUIRED)],
    port=PORT,
    unauthenticated=True,  # the gateway asks for keys of its own, which clients of OpenAI can send
    cpu=1.0,  # a gateway uses one core
    memory=1024,  # MiB
    min_containers=1,  # a Server without a container answers 503, so there is always one
    max_containers=4,
    target_concurrency=200,  # open requests for which another container is started
    max_concurrency=1000,  # beyond this a container is sent no more: Modal answers 429
    scaledown_window=600,
    startup_timeout=STARTUP,
    exit_grace_period=600,  # open streams may end before the container is told to
    routing_region="us-east",  # near your clients and the database
)(Gateway)
