"""The page on troubleshooting shows what the programs print, word for word.

Rule: the messages are provoked where they come from, never read from the source. A word in capitals on the
page stands for what differs from one message to the next.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.cli import deployments
from gateway.cli.show import CommandError
from gateway.core import modal
from gateway.core.decode.edge import failure_of
from gateway.core.decode.failure import Place
from modal_backend.container import Container, remarks
from modal_backend.deployment import DeploymentError, check_gpu, read
from modal_backend.server_process import ServerFailed, ServerProcess
from tests.clients.process import free_port
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
STANDS_FOR_SOMETHING = re.compile(r"\b(?:GPUS|LIST|MODEL|MODULE|N|NAME|REASON|STATUS|UPSTREAM)\b")
MINE = {"model": "me/mine", "engine": "transformers", "gpu": "L4"}


def shown() -> list[str]:
    """Every message on the page: the lines of its `text` blocks, and the first column of its table."""
    blocks = re.findall(r"^```text\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    rows = re.findall(r"^\| (`+)(.+?)\1 \|", PAGE, re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()] + [text.strip() for _, text in rows]


def by_the_gateway() -> Iterator[str]:
    """What Modal's edge says becomes an error of ours."""
    disabled = modal.DISABLED.format(workspace="ecorp")
    for text in (modal.STOPPED, disabled, modal.UNKNOWN, modal.TIMED_OUT, modal.INVALID_CREDENTIALS):
        yield failure_of(Place(at="models.mine.upstream"), 500, {}, text.encode()).message


def by_deploy(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """What `modal-gateway deploy` ends with: its own error, and its answer to each of Modal's."""
    monkeypatch.setitem(sys.modules, "modal", None)
    with pytest.raises(CommandError) as missing:
        deployments.deploy("demo", as_json=False)
    yield f"error: {missing.value}"
    yield from (f"error: {hint}" for hint in deployments.HINTS.values())


def by_the_container(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """What is in a container's log before the engine is there, and when it is gone."""
    mine = read("mine", MINE)
    yield from remarks(mine, 0, Path("nowhere"))
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [name for name in sys.modules if name.startswith("modal_backend.engines.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(DeploymentError) as missing:
        Container(mine).load()
    yield str(missing.value)
    program = "from modal_backend import container; container._end_process('no memory')"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    yield ended.stderr.strip()


def by_the_inference_server() -> Iterator[str]:
    for program, patience in (("raise SystemExit(3)", 60), ("input()", 0)):
        server = ServerProcess([sys.executable, "-c", program], free_port(), "openai")
        with pytest.raises(ServerFailed) as failed:
            server.ready(patience)
        server.stop()
        yield str(failed.value)


def by_the_file() -> Iterator[str]:
    yield from read("mine", MINE).warnings()
    with pytest.raises(DeploymentError) as wrong:
        check_gpu("A10G")
    yield str(wrong.value)


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return [
        *by_the_gateway(),
        *by_deploy(monkeypatch),
        *by_the_container(monkeypatch),
        *by_the_inference_server(),
        *by_the_file(),
    ]


def fits(known: str, real: str) -> bool:
    """Is ``real`` this message of the page, its words in capitals replaced?"""
    return re.fullmatch(STANDS_FOR_SOMETHING.sub(".+", re.escape(known)), real) is not None


def test_each_message_is_on_the_page_and_each_on_the_page_is_printed(printed: list[str]) -> None:
    unknown = [known for known in shown() if not any(fits(known, real) for real in printed)]
    assert not unknown, "\n".join(["on the page alone:", *unknown])
    absent = [real for real in printed if not any(fits(known, real) for known in shown())]
    assert not absent, "\n".join(["not on the page:", *absent])


FAULTS = {
    "A package is missing in the image": "there is no module",
    "The GPU is not found": "no GPU was found",
    "The function timed out": "ran into its timeout",
    "What was written to the volume is gone": "are not on the volume",
    "There is no token": "no Modal token here",
    "The app is stopped": "is stopped",
    "The workspace is disabled": "is disabled",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_usual_fault_has_a_section_with_its_message(fault: str) -> None:
    section = PAGE.partition(f"\n### {fault}\n")[2].partition("\n## ")[0].partition("\n### ")[0]
    assert FAULTS[fault] in section.partition("```text\n")[2].partition("```")[0]
