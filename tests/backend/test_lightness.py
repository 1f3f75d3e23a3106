"""A container's own code is there at once: importing it loads nothing heavy."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "vllm", "numpy", "modal", "fastapi", "starlette", "pydantic", "uvicorn")
SCRIPT = """
import json, sys
import modal_backend.container, modal_backend.contract, modal_backend.deployment, modal_backend.spawned
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


def test_contract_and_container_import_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60
    )
    loaded = json.loads(done.stdout)
    assert "modal_backend" in loaded
    assert [name for name in HEAVY if name in loaded] == []
