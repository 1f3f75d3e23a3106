"""The gateway's own prompt API is what it asks of containers: its conformance checks find nothing wrong."""

from __future__ import annotations

import json
import subprocess

from tests.clients.process import ROOT, gateway


def test_the_prompt_api_conforms_to_the_contract(demo: str) -> None:
    done = subprocess.run(
        gateway("conformance", f"{demo}/v1/prompt/chatglm2-6b", "--json"),
        cwd=ROOT,
        check=False,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = {check["check"]: check["result"] for check in json.loads(done.stdout)["checks"]}
    assert {found[name] for name in ("whole", "streamed", "stops", "usage", "errors", "cancel")} == {"ok"}
