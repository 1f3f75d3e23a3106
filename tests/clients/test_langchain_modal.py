"""LangChain's `Modal` class itself, of 2023 and of today, at the gateway: an address with the key, no more.

The class sends no headers and refuses answers that do not repeat the prompt. Each program is a plain script,
run in the environment that its lock makes; what it prints is what is asserted.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.conftest import Guarded

HERE = Path(__file__).parent

pytestmark = pytest.mark.clients


def printed(python: Path, program: Path, *arguments: str) -> list[str]:
    done = subprocess.run(
        [python, program, *arguments],
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        check=False,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("environment", "program"),
    [("langchain_2023", "modal_chain.py"), ("langchain_community", "modal_class.py")],
)
def test_the_class_needs_an_address_with_the_key_and_nothing_else(
    environment: str, program: str, client_python: Callable[[str], Path], guarded: Guarded
) -> None:
    address = guarded.url.replace("http://", f"http://x:{guarded.key}@") + "/v1/prompt/obedient-7b?echo=1"
    script = HERE / environment / "programs" / program
    guarded.container.calls.clear()
    run, piped, stopped = printed(client_python(environment), script, address, "say: 1 2 3")
    assert (run, piped) == ("say: 1 2 31 2 3",) * 2  # the class gives the copy to its caller
    assert stopped == "say: 1 "  # cut by the class, in the copy
    assert guarded.container.calls == [{"prompt": "say: 1 2 3", "max_tokens": 100}] * 3
