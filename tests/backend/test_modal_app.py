"""The Modal file: a plain class that serves without Modal, and a deployment that lacks but a token."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from modal_backend.deployment import read
from modal_backend.engine import Generates
from tests.backend.conftest import Host

pytest.importorskip("modal", reason="the Modal SDK is not installed: pip install 'modal-gateway[modal]'")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def deployed() -> Any:
    from modal_backend import app

    return app


def test_libraries_in_the_image_are_told_not_to_report_unless_the_file_says_otherwise(
    deployed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import modal

    seen: list[dict[str, str]] = []
    monkeypatch.setattr(modal.Image, "env", lambda image, names: seen.append(names) or image)
    file = {"model": "org/name", "engine": "vllm", "gpu": "L4"}
    for env in ({}, {"DO_NOT_TRACK": "0", "HF_ENDPOINT": "https://hub.example.com"}):
        deployed.image_of(read("mine", {**file, "image": {"env": env}}), "")
    assert [names["DO_NOT_TRACK"] for names in seen] == ["1", "0"]
    assert seen[1]["HF_ENDPOINT"] == "https://hub.example.com"


async def test_the_class_serves_without_modal(deployed: Any, host: Host, client: httpx.AsyncClient) -> None:
    backend = deployed.Backend()
    backend.start()
    await backend.warm()
    assert isinstance(backend.container.engine, Generates)
    url = host.serve(backend.web())
    assert (await client.post(url, json={"prompt": "repeat: hello"})).json()["prompt"] == "hello"
    assert (await client.get(f"{url}/health")).json()["engine"] == "demo"
    assert (await backend.answer({"prompt": "repeat: hello"}))["prompt"] == "hello"
    await backend.stop()


def test_the_container_holds_our_package(deployed: Any) -> None:
    # Modal has no public way to read an app back before it is deployed.
    spec = deployed.BackendCls._get_class_service_function()._spec_
    assert any("'modal_backend'" in repr(mount) for mount in spec.mounts)
    assert list(spec.volumes) == ["/models", "/cache"]


def deploy(home: Path, *what: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """``modal deploy`` by someone who has no account, with nothing of this machine's environment."""
    command = [sys.executable, "-m", "modal", "deploy", *what]
    environment = {"HOME": str(home), "PATH": os.defpath, "PYTHONUTF8": "1", **settings}
    return subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, check=False)


@pytest.mark.parametrize("what", [("-m", "modal_backend.app"), ("modal_backend/app.py",)])
@pytest.mark.parametrize("preset", ["demo", "qwen3-8b"])
def test_modal_deploy_fails_on_the_token_alone(tmp_path: Path, what: tuple[str, ...], preset: str) -> None:
    ended = deploy(tmp_path, *what, MODAL_GATEWAY_MODEL=preset)
    assert ended.returncode == 1
    assert "Error: Token missing." in ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr


def test_modal_deploy_would_tell_of_any_other_mistake(tmp_path: Path) -> None:
    ended = deploy(tmp_path, "-m", "modal_backend.app", MODAL_GATEWAY_MODEL="magic")
    assert ended.returncode == 1
    assert "Token missing" not in ended.stderr
    assert "magic" in ended.stdout + ended.stderr
