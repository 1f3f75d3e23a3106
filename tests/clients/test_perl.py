"""A language without an SDK: the page's program runs, and says why when it cannot go on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.conftest import Guarded
from tests.clients.page import shown

PROGRAM, OUTPUT = shown("A language without an SDK")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """``run(program, url, key)``, to its end. Skips where perl and its usual modules are not installed."""
    perl = shutil.which("perl")
    if perl is None:
        pytest.skip("no perl here")
    loads = [perl, "-MHTTP::Tiny", "-MJSON::PP", "-e1"]
    if subprocess.run(loads, check=False, capture_output=True).returncode:
        pytest.skip("this perl comes without its modules HTTP::Tiny and JSON::PP")

    def run(program: str, url: str, key: str = "unused") -> subprocess.CompletedProcess[str]:
        file = tmp_path / "program.pl"
        file.write_text(program, encoding="utf-8")
        env = {**os.environ, "OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": key}
        return subprocess.run(
            [perl, file], env=env, check=False, capture_output=True, encoding="utf-8", timeout=30
        )

    return run


def streaming(model: str, text: str) -> str:
    """The page's program, asking this and only for a stream."""
    whole = next(line for line in PROGRAM.splitlines() if line.startswith("print ask("))
    return PROGRAM.replace(whole, "").replace("chatglm2-6b", model).replace("count to 5", text)


def test_the_page_shows_what_its_program_prints(run: Run, demo: str) -> None:
    done = run(PROGRAM, demo)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", OUTPUT)


@pytest.mark.parametrize(
    ("text", "printed", "said"),
    [
        ("say: one two", "one two\n", ""),
        ("refuse 429 busy: try later", "", "try later"),
        ("break: one two", "one two", "the engine died"),
        ("drop: one two", "one two", "upstream"),
    ],
)
def test_a_stream_that_ends_early_is_no_success(
    text: str, printed: str, said: str, run: Run, guarded: Guarded
) -> None:
    done = run(streaming("obedient-7b", text), guarded.url, guarded.key)
    assert done.stdout == printed
    assert said in done.stderr
    assert (done.returncode == 0) == (said == "")


def test_a_wrong_key_and_an_unknown_model_are_said(run: Run, guarded: Guarded) -> None:
    wrong = run(streaming("obedient-7b", "say: x"), guarded.url, "sk-wrong")
    assert wrong.stdout == ""
    assert wrong.stderr.startswith("Incorrect API key provided")
    unknown = run(streaming("nope-7b", "say: x"), guarded.url, guarded.key)
    assert "nope-7b" in unknown.stderr
