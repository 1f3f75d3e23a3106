"""The gateways that the clients call: the demo, the demo in a hurry, and one with keys before a container
that does as it is told.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from gateway.cli.demo import configuration
from tests.clients.process import free_port, gateway, serving
from tests.clients.told import Told, told

SECRET = "sk-client-of-the-tests"
MAX_BODY = 4096  # bytes
CONFIG = """
server: {{max_body: {max_body}}}
auth: {{mode: keys, keys: [{{name: tests, key: "{secret}"}}]}}
models:
  obedient-7b:
    aliases: [gpt-3.5-turbo]
    upstream: {{kind: prompt, url: "{url}"}}
    template: plain
  echoing-7b:
    upstream: {{kind: prompt, url: "{url}/echo"}}
    template: chatglm2
"""


@dataclass(frozen=True)
class Guarded:
    """A gateway that wants ``key``; ``container`` is what it calls."""

    url: str
    key: str
    container: Told


@pytest.fixture(scope="session")
def demo_command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a running ``modal-gateway demo``, without ``/v1``, as a person would start it."""
    folder, port = tmp_path_factory.mktemp("demo"), free_port()
    with serving(gateway("demo", "--port", str(port)), port, folder=folder) as url:
        yield url


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The same gateway and container, only that the container does not pause between two tokens."""
    folder, port, container_port = tmp_path_factory.mktemp("swift"), free_port(), free_port()
    container = [sys.executable, "-m", "modal_backend", "--delay", "0", "--port", str(container_port)]
    with serving(container, container_port, folder=folder) as container_url:
        (folder / "gateway.yaml").write_text(json.dumps(configuration(container_url)))  # JSON is YAML
        command = gateway("serve", "--config", "gateway.yaml", "--port", str(port))
        with serving(command, port, folder=folder) as url:
            yield url


@pytest.fixture
def environ(demo: str) -> dict[str, str]:
    """Where the examples find the demo, and which of its models they ask."""
    return {
        "OPENAI_BASE_URL": f"{demo}/v1",
        "OPENAI_API_KEY": "unused",
        "MODEL": "gpt-4o-mini",
        "EMBEDDING_MODEL": "text-embedding-3-small",
    }


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A running ``modal-gateway serve`` with keys and no default model."""
    folder, port = tmp_path_factory.mktemp("guarded"), free_port()
    with told() as container:
        config = CONFIG.format(max_body=MAX_BODY, secret=SECRET, url=container.url)
        (folder / "gateway.yaml").write_text(config)
        command = gateway("serve", "--config", "gateway.yaml", "--port", str(port))
        with serving(command, port, folder=folder) as url:
            yield Guarded(url, SECRET, container)
