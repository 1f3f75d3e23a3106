"""What docker-compose.yml starts with its profile `scale`, as processes here and from the same files.

Rule: only addresses are given, by the environment where the file takes them from there; Prometheus' file is
a copy with other targets. Each process has a port of its own, and a folder where it writes. Programs that are
not installed skip the test.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.clients.process import free_port, gateway, serving
from tests.conftest import ROOT
from tests.services import new_database, postgres, redis

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
CLIENT, METRICS, ADMIN = "sk-of-clients", "sk-of-prometheus", "sk-of-the-administrator"
KEYS = {"GATEWAY_API_KEY": CLIENT, "GATEWAY_METRICS_KEY": METRICS, "MODAL_GATEWAY_ADMIN_KEY": ADMIN}
PACE = "0.005"  # seconds between two tokens of the model
MODEL = "chatglm2-6b"


def program(name: str) -> str:
    """Its path, also where only root looks for it; skips the test if it is not installed."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@dataclass
class Gateway:
    """One gateway, which can be ended, and started again at the same address and with the same spool."""

    name: str
    port: int
    folder: Path
    environ: Mapping[str, str]
    running: ExitStack = field(default_factory=ExitStack)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [str(word) for word in COMPOSE["services"][self.name]["command"]]
        file = command[command.index("--config") + 1]
        command[command.index(file)] = str(ROOT / file.removeprefix("/app/"))
        self.running.enter_context(
            serving(
                gateway(*command, "--port", str(self.port)),
                self.port,
                folder=self.folder,
                ready="/health/ready",
                environ=self.environ,
            )
        )

    def stop(self) -> None:
        """SIGTERM; returns when it has ended."""
        self.running.close()

    def admin(self, method: str, path: str, **more: Any) -> httpx.Response:
        return httpx.request(method, f"{self.url}/admin{path}", headers=bearer(ADMIN), timeout=30, **more)

    def scrape(self) -> str:
        return httpx.get(f"{self.url}/metrics", headers=bearer(METRICS), timeout=30).raise_for_status().text


@dataclass(frozen=True)
class Fleet:
    """Addresses of what runs: ``balancer`` and ``prometheus`` as URLs."""

    gateways: tuple[Gateway, Gateway]
    balancer: str
    prometheus: str

    def asked(self, query: str) -> list[dict[str, Any]]:
        """What Prometheus answers to a query: samples with ``metric`` and ``value``."""
        answer = httpx.get(f"{self.prometheus}/api/v1/query", params={"query": query}, timeout=30)
        assert answer.status_code == 200, f"{query}: {answer.text}"
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found


@contextmanager
def fleet(folder: Path) -> Iterator[Fleet]:
    """Two gateways that share a PostgreSQL and a Redis, a model container, a balancer and Prometheus."""
    haproxy, prometheus = program("haproxy"), program("prometheus")
    with ExitStack() as stack:
        database = stack.enter_context(postgres())
        cache = stack.enter_context(redis("--requirepass", "canary"))
        port = free_port()
        model = [sys.executable, "-m", "modal_backend", "--delay", PACE, "--port", str(port)]
        shared = {
            **KEYS,
            "GATEWAY_DATABASE_URL": new_database(database),
            "GATEWAY_REDIS_URL": f"redis://:canary@127.0.0.1:{cache.port}/0",
            "GATEWAY_MODEL_URL": stack.enter_context(serving(model, port, folder=folder)),
        }
        first, second = (_gateway(name, folder, shared) for name in ("gateway-1", "gateway-2"))
        for each in (first, second):
            stack.callback(each.stop)
            each.start()
        addresses = {
            "BALANCER": f"127.0.0.1:{free_port()}",
            "BALANCER_HEALTH": f"127.0.0.1:{free_port()}",
            "GATEWAY_1": f"127.0.0.1:{first.port}",
            "GATEWAY_2": f"127.0.0.1:{second.port}",
        }
        health = int(addresses["BALANCER_HEALTH"].rpartition(":")[2])
        command = [haproxy, "-db", "-f", str(ROOT / "config/haproxy/haproxy.cfg")]
        stack.enter_context(serving(command, health, folder=folder, environ=addresses))
        scraper = stack.enter_context(scraping(prometheus, folder, [first, second]))
        yield Fleet((first, second), f"http://{addresses['BALANCER']}", scraper)


def _gateway(name: str, folder: Path, shared: Mapping[str, str]) -> Gateway:
    own = folder / name
    own.mkdir()
    return Gateway(name, free_port(), own, {**shared, "GATEWAY_SPOOL": str(own / "spool")})


@contextmanager
def scraping(prometheus: str, folder: Path, gateways: list[Gateway]) -> Iterator[str]:
    """Prometheus with the shipped configuration and rules, twice a second and at these addresses."""
    config = yaml.safe_load((ROOT / "config/prometheus/prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "1s"}
    config["rule_files"] = [str(ROOT / "config/prometheus" / name) for name in config["rule_files"]]
    [job] = config["scrape_configs"]
    del job["dns_sd_configs"], job["relabel_configs"]
    job["static_configs"] = [
        {"targets": [f"127.0.0.1:{each.port}"], "labels": {"instance": each.name}} for each in gateways
    ]
    job["authorization"]["credentials_file"] = str(folder / "metrics-key")
    (folder / "metrics-key").write_text(METRICS)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [prometheus, f"--config.file={folder / 'prometheus.yml'}"]
    command += [f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}"]
    with serving(command, port, folder=folder, ready="/-/ready") as url:
        yield url
