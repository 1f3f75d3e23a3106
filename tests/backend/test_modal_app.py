"""The Modal file: a plain class that serves without Modal, and a deployment that lacks but a token."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from modal_backend.engine import Generates
from tests.backend.conftest import Host

pytest.importorskip("modal", reason="the Modal SDK is not installed: pip install 'modal-gateway[modal]'")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def deployment() -> Any:
    from modal_backend import app

    return app


async def test_the_class_serves_without_modal(deployment: Any, host: Host, client: httpx.AsyncClient) -> None:
    backend = deployment.Backend()
    backend.start()
    assert isinstance(backend.engine, Generates)
    url = host.serve(backend.web())
    assert (await client.post(url, json={"prompt": "repeat: hello"})).json()["prompt"] == "hello"
    assert (await client.get(f"{url}/health")).json()["engine"] == "demo"
    await backend.stop()


def test_the_deployment_has_what_a_model_needs(deployment: Any) -> None:
    # Modal has no public way to read an app back before it is deployed.
    spec = deployment.BackendCls._get_class_service_function()._spec_
    assert spec.gpus == "L4"
    assert list(spec.volumes) == ["/models"]
    assert [str(secret) for secret in spec.secrets] == ["modal.Secret.from_name('huggingface-secret')"]
    assert any("'modal_backend'" in repr(mount) for mount in spec.mounts)


def test_the_url_asks_for_a_proxy_token(deployment: Any) -> None:
    # Nor has it a public way to read a decorator back: its wrapper holds the original under a made-up name.
    held = vars(vars(deployment.Backend)["web"])
    (web,) = [held[name] for name in held if name.startswith("_sync_original")]
    assert web.params.webhook_config.requires_proxy_auth


def test_a_stream_may_outlast_modal_s_default_timeout(deployment: Any) -> None:
    assert deployment.TIMEOUT > 300
    assert deployment.TARGET_INPUTS < deployment.MAX_INPUTS


def deploy(home: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """``modal deploy`` by someone who has no account, with nothing of this machine's environment."""
    command = [sys.executable, "-m", "modal", "deploy", "modal_backend/app.py"]
    environment = {"HOME": str(home), "PATH": os.defpath, "PYTHONUTF8": "1", **settings}
    return subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, check=False)


@pytest.mark.parametrize("settings", [{}, {"MODAL_BACKEND_GPU": "none", "MODAL_BACKEND_SECRET": "none"}])
def test_modal_deploy_fails_on_the_token_alone(tmp_path: Path, settings: dict[str, str]) -> None:
    ended = deploy(tmp_path, **settings)
    assert ended.returncode == 1
    assert "Error: Token missing." in ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr


def test_modal_deploy_would_tell_of_any_other_mistake(tmp_path: Path) -> None:
    ended = deploy(tmp_path, MODAL_BACKEND_ENGINE="magic")
    assert ended.returncode == 1
    assert "Token missing" not in ended.stderr
    assert "magic" in ended.stdout + ended.stderr
