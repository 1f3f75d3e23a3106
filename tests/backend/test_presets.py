"""Every preset becomes a Modal app, offline, that asks Modal for what its file says.

Modal has no public way to read most of an app back, so what the SDK is asked for is noted on the way to it;
the SDK itself is the real one and accepts or refuses.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.core.template import TemplateError
from gateway.templates import load as load_template
from modal_backend.deployment import check_gpu
from modal_backend.source import CARRIED, CHOSEN, PRESETS, chosen, load, names

modal = pytest.importorskip("modal", reason="the Modal SDK is not installed")

ROOT = Path(__file__).parents[2]
WANTED = {
    "chatglm2-6b",
    "chatglm3-6b",
    "baichuan2-13b-chat",
    "falcon-40b-instruct-gptq",
    "falcon-180b-chat",
    "llama-3.1-8b-instruct",
    "llama-3.3-70b",
    "qwen3-8b",
    "qwen3-32b",
    "mistral-7b-instruct-v0.3",
    "gemma-3-12b",
    "phi-4",
    "deepseek-r1-distill-qwen-32b",
    "gpt-oss-20b",
}
MODELS = [name for name in names() if name != "demo"]
UNPINNED = {"falcon-180b-chat"}  # a gated repository: no commit could be looked up
PARSERS = {"hermes": "hermes", "llama3_json": "llama3_json", "mistral": "mistral", "openai": "harmony"}
"""vLLM's name for a way of writing tool calls -> the gateway's."""

Asked = dict[str, Any]


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[Any, Asked]]:
    """Run the Modal file for a preset; the module, and what the SDK was asked for."""
    asked: Asked = {}

    def note(owner: Any, name: str, given: Any) -> None:
        real = getattr(owner, name)

        def noting(*args: Any, **kwargs: Any) -> Any:
            asked[given] = kwargs
            asked[f"{given}, in order"] = args
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, noting)

    note(modal.App, "cls", "hardware")
    note(modal.App, "server", "hardware")
    note(modal, "concurrent", "concurrent")
    note(modal, "asgi_app", "web")
    note(modal.Image, "uv_pip_install", "packages")

    def build(preset: str, **environ: str) -> tuple[Any, Asked]:
        asked.clear()
        monkeypatch.setenv(CHOSEN, preset)
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        spec = importlib.util.spec_from_file_location(
            f"app_of_{len(preset)}", ROOT / "modal_backend" / "app.py"
        )
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module, dict(asked)

    return build


def test_the_promised_models_are_there_and_an_embedding_model() -> None:
    assert set(names()) >= WANTED
    assert any(load(name)[0].engine == "embed" for name in names())


def test_the_folder_in_the_tree_is_the_one_that_ships() -> None:
    assert (ROOT / "config" / "models").resolve() == PRESETS.resolve()


@pytest.mark.parametrize("name", names())
def test_a_preset_becomes_an_app(name: str, build: Any) -> None:
    deployment, _ = load(name)
    module, asked = build(name)
    hardware = asked["hardware"]
    gpus = hardware["gpu"]
    assert tuple([gpus] if isinstance(gpus, str) else gpus or []) == deployment.gpu
    assert {"/models", "/cache"} <= set(hardware["volumes"])
    assert hardware["startup_timeout"] == deployment.startup_timeout
    assert module.app.name == name
    if deployment.serve == "web":
        assert asked["web"] == {"requires_proxy_auth": True}
        assert hardware["timeout"] == deployment.timeout
        assert asked["concurrent"]["max_inputs"] == deployment.concurrency.max_inputs
        assert asked["concurrent"]["target_inputs"] == deployment.concurrency.target_inputs
    else:
        assert hardware["unauthenticated"] is False
        assert hardware["max_concurrency"] == deployment.concurrency.max_inputs
        assert hardware["target_concurrency"] == deployment.concurrency.target_inputs  # else it never scales


@pytest.mark.parametrize("name", MODELS)
def test_a_preset_says_what_must_not_be_left_to_chance(name: str) -> None:
    deployment, data = load(name)
    assert deployment.arguments["trust_remote_code"] in (True, False)
    assert deployment.gpu
    assert deployment.timeout > 300 and deployment.startup_timeout > 300  # Modal's defaults cut a generation
    assert deployment.context_length
    assert {"verified", "revision"} <= set(data)
    assert not deployment.verified.startswith("ran-on-gpu")  # nobody has run one yet
    assert load_template(str(deployment.template))


@pytest.mark.parametrize("name", MODELS)
def test_a_preset_is_of_one_commit_or_comes_with_a_warning(name: str) -> None:
    deployment, _ = load(name)
    assert bool(re.fullmatch(r"[0-9a-f]{40}", deployment.revision)) == (name not in UNPINNED)
    assert any("not pinned" in line for line in deployment.warnings()) == (name in UNPINNED)


@pytest.mark.parametrize("name", [name for name in names() if load(name)[0].verified == "built-offline"])
def test_built_offline_is_an_app_of_the_sdk_whose_image_has_exact_versions(name: str, build: Any) -> None:
    deployment, _ = load(name)
    module, asked = build(name)
    assert isinstance(module.app, modal.App)
    assert isinstance(module.image, modal.Image)
    assert tuple(asked.get("packages, in order", ())[1:]) == deployment.image.pip
    inexact = [each for each in deployment.image.pip if not re.fullmatch(r"[\w.-]+==[\w.]+", each)]
    assert not inexact


@pytest.mark.parametrize("name", MODELS)
def test_the_price_is_of_the_gpu_that_is_asked_for_first(name: str) -> None:
    first, price = load(name)[0].gpu[0], load(name)[0].price
    assert price.gpus == check_gpu(first)
    others = [load(other)[0] for other in MODELS]
    kind = first.partition(":")[0]
    assert {each.price.per_gpu_second for each in others if each.gpu[0].partition(":")[0] == kind} == {
        price.per_gpu_second
    }
    assert price.per_gpu_second and 1e-4 < price.per_gpu_second < 1e-2


@pytest.mark.parametrize("name", MODELS)
def test_the_template_is_the_one_that_the_model_s_name_finds(name: str) -> None:
    deployment, _ = load(name)
    given = load_template(str(deployment.template))
    for known in (name, deployment.model):
        try:
            found = load_template(known)
        except TemplateError:  # not every model has an alias
            continue
        assert found.name == given.name


@pytest.mark.parametrize("name", MODELS)
def test_the_gateway_reads_tool_calls_as_the_server_does(name: str) -> None:
    deployment, _ = load(name)
    parser = deployment.arguments.get("tool_call_parser")
    assert bool(deployment.arguments.get("enable_auto_tool_choice")) == (parser is not None)
    if parser is not None:
        assert deployment.dialect == PARSERS[parser]


@pytest.mark.parametrize("name", names())
def test_the_container_reads_back_what_was_deployed(name: str, build: Any) -> None:
    module, _ = build(name)
    assert chosen({CARRIED: module.carried})[0] == load(name)[0]


def test_a_snapshot_and_a_schedule_reach_modal(tmp_path: Path, build: Any) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "{model: a/b, engine: transformers, gpu: L4, snapshot: gpu, region: us-east, min_containers: 1,"
        " schedule: {warm_up: {cron: '0 8 * * 1-5', timezone: Europe/Berlin}, scale_down: {period: 3600}}}"
    )
    module, asked = build(str(file))
    assert asked["hardware"]["enable_memory_snapshot"] is True
    assert asked["hardware"]["experimental_options"] == {"enable_gpu_snapshot": True}
    assert asked["hardware"]["region"] == ["us-east"]
    assert asked["hardware"]["min_containers"] == 1
    assert module.warm_up_function and module.scale_down_function
