"""LangChain's own tests of chat models, with a model of random weights whose decoding is held to schemas.

The model, its engine and the contract app run in the environment that has torch, LangChain in one of its own,
and the gateway with the interpreter of the tests. What the model says is noise; that calls and JSON have the
shape that was asked for is the work of everything around it. What noise cannot pass is listed with the
reason: a test that begins or ceases to pass fails this one.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.clients.process import ROOT, free_port, gateway, serving
from tests.clients.test_langchain_standard import OPTIONS, PROGRAMS

pytestmark = pytest.mark.clients

TORCH = ROOT / ".venvs" / "torch" / "bin" / "python"
LENGTH = 8192  # tokens of context; the definitions of tools alone take hundreds of so small a vocabulary
BIAS = 5  # what a closing quote is favoured by: noise would go on in a string for hundreds of tokens

MAKE = """
import json, pathlib, sys
from tests.backend.engines.tiny import save, tokenizer
save(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
print(json.dumps(tokenizer().convert_tokens_to_ids('"')))
"""
NOISE = {
    "test_tool_calling": "the argument must be 3, and nothing else may stand in it",
    "test_tool_calling_async": "the argument must be 3, and nothing else may stand in it",
    "test_tool_calling_with_no_arguments": "an object of an open schema must be left empty",
    "test_agent_loop": "it must call a tool of its own accord",
    "test_unicode_tool_call_integration": "the argument must be what the question asks to be greeted",
    "test_json_mode": "only the question says which fields the object must have",
    "test_structured_output_pydantic_2_v1": "an object of an open schema must have no other fields",
}
SKIPPED = {
    "test_pdf_inputs", "test_pdf_tool_message", "test_audio_inputs", "test_image_inputs",
    "test_image_tool_message", "test_stream_time",
}  # fmt: skip
"""What a model of text is not asked, and the time that the client alone takes, on recorded answers."""


def model(url: str, quote: int) -> dict[str, Any]:
    """The entry of the model whose container is at ``url``."""
    return {
        "upstream": {"kind": "prompt", "url": url},
        "aliases": ["tiny-again"],
        "template": "chatml",
        "tools": "hermes",
        "guided": True,
        "defaults": {"max_tokens": 400, "seed": 1, "logit_bias": {str(quote): BIAS}},
    }


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[str]:
    """Address of a gateway before the tiny model."""
    if not TORCH.exists():
        pytest.skip("no environment .venvs/torch: `make test-torch` makes it")
    made = subprocess.run(
        [TORCH, "-c", MAKE, tmp_path / "model", str(LENGTH)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    port, behind = free_port(), free_port()
    engine = ("--engine", "transformers", "--model", str(tmp_path / "model"), "--port", str(behind))
    with serving([str(TORCH), "-m", "modal_backend", *engine], behind, folder=tmp_path) as url:
        config = {"auth": {"mode": "none"}, "models": {"tiny": model(url, json.loads(made.stdout))}}
        (tmp_path / "gateway.yaml").write_text(json.dumps(config))  # JSON is YAML
        command = gateway("serve", "--config", "gateway.yaml", "--port", str(port))
        with serving(command, port, folder=tmp_path) as served:
            yield served


def test_calls_and_json_have_their_shape(
    client_python: Callable[[str], Path], tiny: str, tmp_path: Path
) -> None:
    python, report = client_python("langchain_standard"), tmp_path / "report.xml"
    done = subprocess.run(
        [python, "-m", "pytest", *OPTIONS, "--junitxml", report, PROGRAMS / "tiny_model.py"],
        cwd=tmp_path,
        env={**os.environ, "CHAT_URL": f"{tiny}/v1", "NOISE": json.dumps(NOISE)},
        check=False,
        capture_output=True,
        encoding="utf-8",
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    cases = list(ElementTree.parse(report).iter("testcase"))
    left_out = {name(case): mark.attrib for case in cases for mark in case.iter("skipped")}
    noise = {each for each, mark in left_out.items() if mark["type"] == "pytest.xfail"}
    assert (noise, left_out.keys() - noise) == (set(NOISE), SKIPPED), left_out
    assert {"test_tool_choice", "test_structured_output", "test_stream"} <= {name(case) for case in cases}


def name(case: ElementTree.Element) -> str:
    """A test's name without its parameters."""
    return case.attrib["name"].partition("[")[0]
