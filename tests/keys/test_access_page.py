"""The page on access, done as it says: its file, its commands one after the other, and what they print."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.process import BOUND, Running, environment, running
from tests.conftest import ROOT
from tests.test_docs import DOCS, Block, blocks

SERVE = "modal-gateway serve\n"
NEXT = "--- and then ---"


def of_section(title: str) -> list[Block]:
    """The blocks under this heading."""
    page = DOCS / "access.md"
    lines = page.read_text(encoding="utf-8").splitlines()
    first = lines.index(f"## {title}") + 1
    last = next((n for n, line in enumerate(lines, 1) if n > first and line.startswith("## ")), len(lines))
    return [block for block in blocks(page) if first < block.line < last]


def script(parts: list[Block], gateway: Running) -> str:
    """What a person would type, against this gateway."""
    root = gateway.root.removeprefix("http://")
    return f"echo '{NEXT}'\n".join(block.text.replace("127.0.0.1:8000", root) for block in parts)


@pytest.mark.slow
def test_the_page_does_what_it_says(tmp_path: Path) -> None:
    [config], steps = [of_section("A team, step by step")[:1], of_section("A team, step by step")[1:]]
    assert steps[1].text == SERVE
    (tmp_path / "gateway.yaml").write_text(config.text)
    program = tmp_path / "bin" / "modal-gateway"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m gateway "$@"\n')
    program.chmod(0o755)
    secrets = {
        "MODAL_GATEWAY_ADMIN_KEY": "admin-key",
        "CI_KEY": "ci-key",
        "MODAL_GATEWAY_CONFIG": "gateway.yaml",
    }
    env = environment({**secrets, "PATH": f"{program.parent}:{os.environ['PATH']}"})
    named = re.findall(r"export (\w+)=", steps[0].text)
    assert sorted(named) == sorted(secrets)
    typed = [*steps[2:], *(block for block in of_section("Keys over HTTP") if block.kind == "sh")]
    with running("serve", "--port", "0", cwd=tmp_path, until="see also", env=env) as gateway:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script(typed, gateway)],
            cwd=tmp_path,
            env=env,
            check=False,
            capture_output=True,
            text=True,
            timeout=6 * BOUND,  # a dozen commands
        )
    assert done.returncode == 0, done.stdout + done.stderr
    models, listed, gone, admin, refused = done.stdout.split(f"{NEXT}\n")
    assert [model["id"] for model in json.loads(models)["data"]] == ["small-chat", "gpt-4o-mini"]
    assert re.search(r"^ann +active +research +\* +rpm=60 +dollars=20/month", listed, re.MULTILINE)
    assert re.search(r"^ci +configured +research", listed, re.MULTILINE)
    assert "rpm=120" in listed and "interns" in listed
    assert re.match(r"sk-[\w-]{43}\n", gone) and re.search(r"^state +revoked", gone, re.MULTILINE)
    assert '"concurrent":2' in admin and '"concurrent":4' in admin and '"state":"revoked"' in admin
    [shown] = [block.text for block in of_section("Keys over HTTP") if block.kind == "json"]
    assert json.loads(refused) == json.loads(shown)
    assert str(ROOT) not in done.stdout
