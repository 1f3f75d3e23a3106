"""``python -m modal_backend`` with a model, as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.backend.test_backend_command import ROOT, refused, running

pytestmark = pytest.mark.torch


def test_it_serves_a_model_folder(model_folder: Path) -> None:
    arguments = json.dumps({"max_batch": 2, "context_length": 64})
    options = ("--engine", "transformers", "--model", str(model_folder), "--arguments", arguments)
    with running("--with-parent", *options) as (process, ready):
        assert ready["engine"] == "transformers"
        asked = {"prompt": "the river", "temperature": 0}
        answer = httpx.post(ready["url"], json=asked, trust_env=False, timeout=60).json()
        assert sum(answer["usage"].values()) == 64
        health = httpx.get(f"{ready['url']}/health", trust_env=False).json()
        assert {"json_schema", "logprobs", "seed"} <= set(health["honours"])
        process.communicate()
        assert process.returncode == 0


def test_a_model_that_is_not_there_is_said(tmp_path: Path) -> None:
    code, err = refused("--engine", "transformers", "--model", str(tmp_path / "none"))
    assert code == 1
    assert "the engine transformers cannot start" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("arguments", ["[]", "{", "1"])
def test_arguments_must_be_an_object(arguments: str) -> None:
    code, err = refused("--arguments", arguments)
    assert code == 2
    assert "must be a JSON object" in err


DYING = """
from modal_backend import __main__, engines
from modal_backend.engine import About, EngineDead

class Dying:
    about = About("dying")
    broken = None
    def fault(self):
        return self.broken
    async def close(self):
        pass
    async def generate(self, request):
        self.broken = "the accelerator is gone"
        raise EngineDead(self.broken)
        yield

engines.ENGINES["demo"] = lambda arguments: Dying()
__main__.main([])
"""


def test_a_dead_engine_ends_the_process() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", DYING], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            answer = httpx.post(url, json={"prompt": "p"}, trust_env=False)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_dead")
            _, err = process.communicate(timeout=60)
            assert process.returncode == 70
            assert "the accelerator is gone" in err
        finally:
            process.kill()
