"""A deployment file: every key known or refused, every value checked without an account."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modal_backend.container import engine_arguments, gpus_here, remarks, server_command
from modal_backend.deployment import GPUS, Deployment, DeploymentError, check_gpu, read
from modal_backend.source import CARRIED, CHOSEN, chosen, load, names, on_this_machine

ROOT = Path(__file__).parents[2]
LEAST: dict[str, Any] = {"model": "org/name", "engine": "transformers"}
VLLM: dict[str, Any] = {"model": "org/name", "engine": "vllm", "serve": "server"}

WRONG = [
    ({"modle": "x"}, "modle: unknown key; did you mean model?"),
    ({"image": {"pipp": []}}, "image.pipp: unknown key; did you mean pip?"),
    ({"frobnicate": 1}, "frobnicate: unknown key$"),
    ({"model": None}, "model: is required"),
    ({"engine": "transformer"}, "engine: must be one of .*; did you mean transformers?"),
    ({"gpu": "A10G"}, "gpu: there is no 'A10G'; did you mean A10?"),
    ({"gpu": ["L4", "H100:9"]}, "gpu: 'H100:9' must ask for 1 to 8 GPUs"),
    ({"gpu": "A10:5"}, "gpu: 'A10:5' must ask for 1 to 4 GPUs"),
    ({"gpu": "H100:"}, "gpu: 'H100:' must ask for 1 to 8 GPUs"),
    ({"cpu": True}, "cpu: must be a number"),
    ({"memory": 1.5}, "memory: must be an integer"),
    ({"stops": [1]}, r"stops\[0\]: must be text"),
    ({"image": "debian"}, "image: must be a mapping"),
    ({"volumes": {"models": "x"}}, "volumes: models must be an absolute path"),
    ({"timeout": 86401}, "timeout: must be from 1 to 86400, not 86401"),
    ({"scaledown_window": 1}, "scaledown_window: must be from 2 to 3600, not 1"),
    ({"min_containers": 3, "max_containers": 2}, "min_containers: must be from 0 to 2, not 3"),
    (
        {"concurrency": {"max_inputs": 4, "target_inputs": 5}},
        "concurrency.target_inputs: must be from 1 to 4",
    ),
    ({"schedule": {"warm_up": {}}}, "schedule.warm_up.cron: give either cron or period"),
    ({"schedule": {"warm_up": {"cron": "8"}}}, "schedule.warm_up.cron: five fields are needed"),
    ({"secrets": [{"required_keys": ["A"]}]}, r"secrets\[0\].name: is required"),
    ({"verified": "yes"}, "verified: must be none, built-offline or ran-on-gpu"),
    ({"engine": "sglang"}, "serve: the engine sglang needs `serve: server`"),
    ({"engine": "vllm", "serve": "server", "snapshot": "gpu"}, "snapshot: goes with `serve: web` alone"),
    ({"snapshot": "gpu", "gpu": "L4:2"}, "snapshot: gpu needs exactly one GPU"),
    ({"app": "a b"}, "app: 'a b' is no name for an app"),
]


@pytest.mark.parametrize(("change", "said"), WRONG, ids=lambda value: str(value)[:40])
def test_a_mistake_is_named_with_its_key(change: dict[str, Any], said: str) -> None:
    with pytest.raises(DeploymentError, match=said.replace("?", r"\?")):
        read("mine", LEAST | change)


@pytest.mark.parametrize("gpu", GPUS)
def test_every_gpu_may_be_written_in_any_case_and_counted(gpu: str) -> None:
    assert check_gpu(gpu) == check_gpu(gpu.lower()) == 1
    assert check_gpu(f"{gpu}:{GPUS[gpu]}") == GPUS[gpu]
    with pytest.raises(DeploymentError):
        check_gpu(f"{gpu}:{GPUS[gpu] + 1}")


@given(st.text(max_size=12))
def test_no_other_text_is_a_gpu(text: str) -> None:
    try:
        count = check_gpu(text)
    except DeploymentError:
        return
    assert text.upper().partition(":")[0] in GPUS
    assert 1 <= count <= 8


def test_a_single_item_is_a_list_of_one() -> None:
    made = read("mine", LEAST | {"gpu": "L4", "aliases": "other", "region": "us"})
    assert (made.gpu, made.aliases, made.region) == (("L4",), ("other",), ("us",))


def test_what_a_careful_owner_wants_is_the_default() -> None:
    made = read("mine", LEAST)
    assert made.proxy_auth
    assert made.verified == "none"
    assert set(made.mounts) == {"/models", "/cache"}
    assert made.speaks == "prompt"
    assert read("mine", LEAST | {"proxy_auth": False}).warnings()[-1].startswith("proxy_auth is off")


@pytest.mark.parametrize("name", names())
def test_a_deployment_survives_its_way_into_the_container(name: str) -> None:
    deployment, carried = chosen({CHOSEN: name})
    assert chosen({CARRIED: carried, CHOSEN: "ignored"}) == (deployment, carried)
    assert json.loads(carried)["name"] == deployment.name


def test_a_server_is_told_what_the_file_says() -> None:
    made = read("q", VLLM | {"revision": "r", "context_length": 512, "arguments": {
        "trust_remote_code": False, "enforce_eager": True, "quantization": "fp8", "limit": {"image": 1},
    }})  # fmt: skip
    assert server_command(made, 8000, 2) == [
        "vllm", "serve", "org/name", "--revision", "r", "--served-model-name", "q", "--host", "0.0.0.0",
        "--port", "8000", "--max-model-len", "512", "--tensor-parallel-size", "2", "--enforce-eager",
        "--quantization", "fp8", "--limit", '{"image": 1}',
    ]  # fmt: skip
    sglang = server_command(read("q", VLLM | {"engine": "sglang"}), 8000, 0)
    assert sglang[:5] == ["python", "-m", "sglang.launch_server", "--model-path", "org/name"]
    assert sglang[-2:] == ["--tp-size", "1"]


def test_the_engine_gets_the_facts_that_stand_elsewhere() -> None:
    made = read("q", LEAST | {"context_length": 512, "arguments": {"dtype": "float16"}})
    wanted = {"model": "org/name", "revision": "main", "context_length": 512, "dtype": "float16"}
    assert engine_arguments(made) == wanted


def test_this_machine_may_have_other_weights_and_another_engine() -> None:
    preset, _ = load("qwen3-8b")
    here = on_this_machine(preset, "transformers", "weights")
    assert (here.engine, here.model, here.serve, dict(here.arguments)) == (
        "transformers",
        "weights",
        "web",
        {},
    )
    assert on_this_machine(preset, None, None) == preset


def test_the_log_tells_what_is_missing(tmp_path: Path) -> None:
    made = read("q", LEAST | {"gpu": "L4"})
    gpu, weights = remarks(made, gpus_here(tmp_path), tmp_path)
    assert gpu.startswith("no GPU was found, though `gpu` asks for L4")
    assert weights.startswith("the weights of org/name are not on the volume")
    (tmp_path / "nvidia0").touch()
    (tmp_path / "nvidiactl").touch()
    (tmp_path / "models--org--name").mkdir()
    assert gpus_here(tmp_path) == 1
    assert remarks(made, 1, tmp_path) == []
    assert remarks(replace(made, model="/models/mine"), 1, tmp_path / "nothing") == []  # a folder is no name


def test_files_are_found_by_path_and_presets_by_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("{model: a, engine: demo}")
    assert load(str(file))[0].name == "mine"
    for name, said in [
        ("qwen3-8", "did you mean qwen3-8b?"),
        ("nowhere.yaml", "there is no file nowhere.yaml"),
    ]:
        with pytest.raises(DeploymentError, match=said.replace("?", r"\?")):
            load(name)
    file.write_text("{model: ")
    with pytest.raises(DeploymentError, match="is not valid YAML"):
        load(str(file))
    file.write_text("[]")
    with pytest.raises(DeploymentError, match=r"mine\.yaml: the file must hold a mapping"):
        load(str(file))


def test_it_is_read_with_the_standard_library_alone() -> None:
    # -S leaves site-packages out: a container's image may have nothing but the model's own packages.
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); "
        "import modal_backend.container, modal_backend.probe; "
        "from modal_backend.source import chosen; chosen({'MODAL_GATEWAY_DEPLOYMENT': "
        '\'{"name": "x", "model": "a", "engine": "demo"}\'})'
    )
    command = [sys.executable, "-I", "-S", "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_every_key_is_described() -> None:
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    keys = [each.name for each in fields(Deployment) if each.name != "name"]
    assert [key for key in keys if f"`{key}`" not in page] == []
    assert [name for name in names() if f"`{name}`" not in page] == []
