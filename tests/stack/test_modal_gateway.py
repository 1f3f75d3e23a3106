"""The gateway as a Modal Server: all but Modal itself, for which there is no account."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import httpx
import pytest
import yaml

from tests.clients.process import free_port
from tests.conftest import ROOT

pytest.importorskip("modal", reason="the Modal SDK is not installed: pip install 'modal-gateway[modal]'")

FILE = ROOT / "config" / "modal" / "gateway.py"


@pytest.fixture
def module() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("gateway_on_modal", FILE)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    yield loaded


def test_modal_deploy_fails_on_the_token_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "modal", "deploy", str(FILE)]
    environment = {"HOME": str(tmp_path), "PATH": os.defpath, "PYTHONUTF8": "1"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, check=False)
    assert ended.returncode == 1
    assert "Error: Token missing." in ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr


def test_the_gateway_gets_its_drain_before_modal_kills_it(module: ModuleType) -> None:
    settings = yaml.safe_load((ROOT / module.SETTINGS).read_text())
    assert settings["server"]["drain_timeout"] == module.DRAIN
    assert module.DRAIN + 10 <= 30  # seconds from Modal's signal to the kill


def test_what_the_secret_must_hold_is_what_the_configuration_asks_for(module: ModuleType) -> None:
    text = (ROOT / module.SETTINGS).read_text()
    assert [name for name in module.REQUIRED if f"${{{name}}}" not in text] == []
    assert text.count("${") == text.count(":-") + len(module.REQUIRED)


def served(module: ModuleType, tmp_path: Path, patch: pytest.MonkeyPatch) -> str:
    """Give it an environment and a port of its own; its address."""
    given = {"MODAL_GATEWAY_ADMIN_KEY": "sk-admin", "GATEWAY_METRICS_KEY": "sk-metrics"}
    given |= {"GATEWAY_SPOOL": str(tmp_path / "spool"), "GATEWAY_REDIS_URL": "redis://127.0.0.1:1/0"}
    given["GATEWAY_DATABASE_URL"] = f"sqlite:///{tmp_path / 'gateway.db'}"
    for name, value in given.items():
        patch.setenv(name, value)
    patch.setattr(module, "PORT", free_port())
    return f"http://127.0.0.1:{module.PORT}"


@pytest.mark.slow
def test_the_class_serves_without_modal_and_ends_in_order(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = served(module, tmp_path, monkeypatch)
    gateway = module.Gateway()
    gateway.start()
    try:
        key = {"authorization": "Bearer sk-metrics"}
        assert httpx.get(f"{url}/health/ready").status_code == 200
        assert httpx.get(f"{url}/metrics").status_code == 401
        assert "modal_gateway_build_info" in httpx.get(f"{url}/metrics", headers=key).text
    finally:
        gateway.stop()
    assert gateway.process.returncode == 0


@pytest.mark.slow
def test_a_gateway_that_cannot_start_is_an_error_at_once(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served(module, tmp_path, monkeypatch)
    monkeypatch.delenv("GATEWAY_METRICS_KEY")
    with pytest.raises(RuntimeError, match="before it was ready"):
        module.Gateway().start()
