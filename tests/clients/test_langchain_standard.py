"""LangChain's own tests of chat models and embeddings, run for its OpenAI classes in front of the demo.

The programs run in an environment of their own. What LangChain skips is listed here with the reason: a test
that begins to be skipped fails this one.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

PROGRAMS = Path(__file__).parent / "langchain_standard" / "programs"
OPTIONS = [
    *("-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", PROGRAMS, "--confcutdir", PROGRAMS),
    *("-o", "asyncio_mode=auto", "-o", "asyncio_default_test_loop_scope=session"),
]
SKIPPED = {
    "test_pdf_inputs": "PDF",
    "test_pdf_tool_message": "PDF",
    "test_audio_inputs": "audio",
    "test_stream_time": "VCR",  # it times the client alone, on recorded answers
}

pytestmark = pytest.mark.clients


Run = Callable[[str], list[ElementTree.Element]]


@pytest.fixture
def run(client_python: Callable[[str], Path], demo: str, tmp_path: Path) -> Run:
    """``run("embeddings")``: the test cases of that program, all of which passed or were skipped."""
    python, report = client_python("langchain_standard"), tmp_path / "report.xml"

    def run(program: str) -> list[ElementTree.Element]:
        done = subprocess.run(
            [python, "-m", "pytest", *OPTIONS, "--junitxml", report, PROGRAMS / f"{program}.py"],
            cwd=tmp_path,
            env={**os.environ, "CHAT_URL": f"{demo}/v1"},
            check=False,
            capture_output=True,
            encoding="utf-8",
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return list(ElementTree.parse(report).iter("testcase"))

    return run


def skipped(cases: list[ElementTree.Element]) -> dict[str, str]:
    """Why each was skipped, by name."""
    return {case.attrib["name"]: mark.attrib["message"] for case in cases for mark in case.iter("skipped")}


def test_a_chat_model(run: Run) -> None:
    cases = run("chat_model")
    found = skipped(cases)
    assert set(found) == set(SKIPPED), found
    assert all(reason in found[name] for name, reason in SKIPPED.items()), found
    assert len(cases) - len(found) >= 40


def test_embeddings(run: Run) -> None:
    cases = run("embeddings")
    assert len(cases) >= 4 and not skipped(cases)
