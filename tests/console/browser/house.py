"""What the browser visits: a gateway with keys and a ledger, a demo container, and one that sleeps.

Rule: processes of their own, as a person would start them, on free ports of loopback; they end with the
block. Knows nothing of browsers.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.clients.process import PATIENCE, free_port, gateway, serving

ADMIN = "admin-key-of-the-console"
OWN = "sk-of-the-configuration"
BOOT = 2.0  # seconds that the sleeper's container takes
IDLE = 3.0  # seconds after which it is stopped
PACE = 0.01  # seconds between two tokens of the demo
CHAT = "chatglm2-6b"
SLEEPER = "sleeper-7b"


@dataclass(frozen=True)
class Place:
    """A running gateway: ``url`` without a path, the admin key and a caller's, empty where none is needed."""

    url: str
    admin: str = ADMIN
    key: str = OWN

    def client(self, *, admin: bool = False) -> httpx.Client:
        """Calls it as a program does: with the caller's key, or the admin's."""
        key = self.admin if admin else self.key
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE, trust_env=False)

    def chat(self, text: str, model: str = CHAT, **fields: Any) -> httpx.Response:
        """One request with the caller's key, answered."""
        body = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
        with self.client() as client:
            return client.post("/v1/chat/completions", json=body).raise_for_status()

    def until(self, model: str, *states: str) -> str:
        """Wait until a model's first upstream is in one of these states; that state."""
        deadline = time.monotonic() + PATIENCE
        with self.client(admin=True) as client:
            while True:
                rows = client.get("/admin/upstreams").raise_for_status().json()["data"]
                state = next(str(row["state"]) for row in rows if row["model"] == model)
                if state in states:
                    return state
                assert time.monotonic() < deadline, f"{model} is {state}, not one of {states}"
                time.sleep(0.05)  # nobody tells us that it has changed


@contextmanager
def container(folder: Path, pace: float = PACE) -> Iterator[str]:
    """A container that answers by the demo's rules; its URL."""
    port = free_port()
    command = [sys.executable, "-m", "modal_backend", "--delay", str(pace), "--port", str(port)]
    with serving(command, port, folder=folder) as url:
        yield url


@contextmanager
def asleep(folder: Path, app: str, boot: float = BOOT, idle: float = IDLE) -> Iterator[str]:
    """The same app behind Modal's edge, which has to boot it; its URL."""
    port = free_port()
    options = ("--boot", str(boot), "--idle", str(idle), "--port", str(port))
    command = gateway("simulate", "--app", app, *options)
    with serving(command, port, folder=folder, ready="/_simulate") as url:
        yield url


@contextmanager
def place(folder: Path, models: Mapping[str, Any], **top: Any) -> Iterator[Place]:
    """A gateway of these models with its store in ``folder``; ``top`` replaces parts of its configuration."""
    port = free_port()
    config = {
        "auth": {"keys": [{"name": "own", "key": OWN}]},
        "admin": {"key": ADMIN},
        "store": {"url": "sqlite:///gateway.db", "revocation_poll": 0.2},
        "models": models,
        **top,
    }
    (folder / "gateway.yaml").write_text(json.dumps(config))  # JSON is YAML
    command = gateway("serve", "--config", "gateway.yaml", "--port", str(port))
    with serving(command, port, folder=folder) as url:
        yield Place(url)


@contextmanager
def house(folder: Path) -> Iterator[Place]:
    """The gateway that the tests of the console share."""
    with ExitStack() as stack:
        awake = stack.enter_context(container(folder))
        sleeping = stack.enter_context(asleep(folder, awake))
        yield stack.enter_context(place(folder, models(awake, sleeping)))


def models(awake: str, sleeping: str) -> dict[str, Any]:
    """A chat model with all that the demo can do, one that sleeps, and one of vectors."""
    price = {"per_gpu_second": 0.0004, "per_million_input": 0.2, "per_million_output": 0.6}
    chat = {
        "aliases": ["gpt-4o-mini", "gpt-3.5-turbo"],
        "upstream": {"url": awake},
        "template": "chatglm2",
        "logprobs": True,
        "tools": "hermes",
        "guided": True,
        "images": True,
        "image_token": "<image>\n",
        "price": price,
    }
    sleeper = {"upstream": {"url": sleeping, "scaledown_window": IDLE}, "template": "plain", "price": price}
    return {CHAT: chat, SLEEPER: sleeper, "demo-embed": {"upstream": {"url": awake}, "template": "plain"}}


@contextmanager
def demo(folder: Path) -> Iterator[tuple[Place, str]]:
    """``modal-gateway demo``, and the one-time address that it prints."""
    port = free_port()
    with serving(gateway("demo", "--port", str(port)), port, folder=folder) as url:
        address = _printed(folder / f"server-{port}.log", re.compile(r"http://\S+/#ticket=\S+"))
        yield Place(url, admin="", key=""), address


def _printed(log: Path, wanted: re.Pattern[str]) -> str:
    """What of this appears in a log; it is written once the server has answered itself."""
    deadline = time.monotonic() + PATIENCE
    while (found := wanted.search(log.read_text(errors="replace"))) is None:
        assert time.monotonic() < deadline, log.read_text(errors="replace")
        time.sleep(0.02)  # a file tells nobody that it has grown
    return found[0]
