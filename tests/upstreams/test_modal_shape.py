"""The fake of Modal's SDK has the real one's shape; without an account the real one fails as we expect."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.upstreams.modal_sdk.config import INSTALL, OPTIONS
from tests.upstreams import modal_fake

modal = pytest.importorskip(
    "modal", reason="Modal's SDK is not installed: pip install 'modal-gateway[modal]'"
)

ROOT = Path(__file__).parents[2]
FUNCTION = modal.Function.from_name("a", "f")
INSTANCE = modal.Cls.from_name("a", "C")()
CALL = modal.FunctionCall.from_id("fc-1")
QUEUE = modal.Queue.from_name("q")


@pytest.mark.parametrize(
    ("real", "used", "fake"),
    [
        (FUNCTION.hydrate, (), modal_fake.Function._hydrate),
        (FUNCTION.get_current_stats, (), modal_fake.Function._stats),
        (FUNCTION.autoscaler.settings, (), modal_fake.Function._settings),
        (FUNCTION.autoscaler.update, ("min_containers",), modal_fake.Function._update),
        (INSTANCE.predict.autoscaler.settings, (), modal_fake.Function._settings),
        (INSTANCE.predict.autoscaler.update, ("min_containers",), modal_fake.Function._update),
        (INSTANCE.predict.hydrate, (), modal_fake.Function._hydrate),
        (CALL.get, (), modal_fake.FunctionCall._get),
        (CALL.cancel, (), modal_fake.FunctionCall._cancel),
        (QUEUE.get_many, ("n_values", "partition"), modal_fake.Queue._get_many),
        (QUEUE.put_many, ("vs", "timeout", "partition", "partition_ttl"), modal_fake.Queue._put_many),
        (QUEUE.clear, ("partition",), modal_fake.Queue._clear),
    ],
)
def test_a_method_that_we_call(real: Any, used: tuple[str, ...], fake: Callable[..., Any]) -> None:
    assert callable(real.aio)
    theirs = set(inspect.signature(real).parameters) - {"self"}
    ours = set(inspect.signature(fake).parameters) - {"self"}
    assert set(used) <= ours <= theirs


@pytest.mark.parametrize("name", ["spawn", "remote_gen"])
def test_a_method_that_passes_on_any_arguments(name: str) -> None:
    real, fake = getattr(FUNCTION, name), getattr(modal_fake.Function, f"_{name}")
    assert callable(real.aio) and callable(getattr(INSTANCE.predict, name).aio)
    for method in (real, fake):
        kinds = [parameter.kind for parameter in inspect.signature(method).parameters.values()]
        assert kinds[-2:] == [inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD]


def test_what_handles_are_made_with() -> None:
    for group in (modal.Function, modal.Cls):
        assert {"version", "environment_name"} <= set(inspect.signature(group.from_name).parameters)
        assert set(inspect.signature(group.with_options).parameters) >= OPTIONS
    queue = inspect.signature(modal.Queue.from_name).parameters
    assert {"environment_name", "create_if_missing"} <= set(queue)


def test_what_is_counted() -> None:
    fields = modal.types.FunctionCurrentStats.__dataclass_fields__
    assert {"backlog", "num_total_runners"} <= set(fields)
    assert "min_containers" in modal.types.FunctionAutoscalerSettings.__dataclass_fields__


def test_why_results_are_not_got_by_their_readers() -> None:
    assert "not cancellation-safe" in inspect.getdoc(modal.FunctionCall.get)


def without_account(home: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run Python without an account, whoever's machine this is."""
    environment = {"HOME": str(home), "PATH": os.defpath, "PYTHONUTF8": "1"}
    whole = [sys.executable, "-W", "error", *command]
    return subprocess.run(whole, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def python(script: str, home: Path) -> str:
    """What a script prints."""
    done = without_account(home, "-c", script)
    assert done.returncode == 0, done.stderr
    return done.stdout


WITHOUT_TOKEN = """
import asyncio, json
from gateway.core.call import PromptCall
from gateway.core.errors import GatewayError
from gateway.upstreams.modal_sdk.config import ModalConfig
from gateway.upstreams.modal_sdk import ModalUpstream

async def code(awaitable):
    try:
        await awaitable
    except GatewayError as error:
        return [error.status, error.code]

async def main():
    found = []
    for stream in ("none", "generator", "queue", "auto"):
        names = {"app": "demo", "class": "Model", "method": "predict"}
        config = {**names, "stream": stream, "options": {"gpu": "T4"}}
        upstream = ModalUpstream("m", ModalConfig.model_validate(config))
        call = PromptCall("hello", {}, stream=True, request_id="req_1")
        found.append(await code(anext(upstream.events(call))))
        for asked in (upstream.reachable(), upstream.observed(), upstream.keep(1)):
            found.append(await code(asked))
        await upstream.aclose()
    print(json.dumps(found))

asyncio.run(main())
"""


def test_without_a_token_everything_is_told_to_be_unauthorized(tmp_path: Path) -> None:
    assert json.loads(python(WITHOUT_TOKEN, tmp_path)) == [[502, "upstream_auth"]] * 16


WITHOUT_SDK = """
import sys
sys.modules["modal"] = None
from gateway.settings import ConfigError, settings_from
entry = {"m": {"upstream": {"kind": "modal", "app": "a", "function": "f"}}}
try:
    settings_from({"models": entry})
except ConfigError as error:
    print(error)
"""


def test_without_the_sdk_the_configuration_says_how_to_get_it(tmp_path: Path) -> None:
    assert python(WITHOUT_SDK, tmp_path).strip() == f"models.m.upstream: {INSTALL}"


def test_check_names_the_function_and_says_what_runs_on(tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text("auth: {mode: none}\nmodels: {m: {upstream: {kind: modal, app: demo, function: f}}}\n")
    done = without_account(tmp_path, "-m", "gateway", "check", "--config", str(config))
    assert done.returncode == 1
    said = " ".join(done.stdout.split())
    assert "modal demo/f NO" in said
    assert "note: models.m: if demo/f is a generator, it runs on after its client has left" in said
    assert "wrong: Modal refused the gateway's token (models.m.upstream): run `modal token new`" in said
