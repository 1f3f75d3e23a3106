"""Tell another program what a deployment is: ``python -m modal_backend.describe NAME_OR_FILE`` or ``--list``.

Rule: exactly one line of JSON on standard output. ``{"error": ...}`` and exit status 2 say what is wrong with
the file. This is how the gateway's commands ask, because the two packages never import each other.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from modal_backend.deployment import Deployment, DeploymentError
from modal_backend.source import find, load, names


def described(name_or_file: str) -> dict[str, Any]:
    """Everything the file says, with defaults, and what follows from it. Raises ``DeploymentError``."""
    deployment, _ = load(name_or_file)
    return {
        **asdict(deployment),
        "file": str(find(name_or_file)),
        "app": deployment.app_name,
        "speaks": deployment.speaks,
        "volumes": dict(deployment.mounts),
        "function": _function(deployment),
        "warnings": deployment.warnings(),
    }


def _function(deployment: Deployment) -> str:
    """The last part of the deployed address."""
    return f"{deployment.app_name}-{'served' if deployment.serve == 'server' else 'backend-web'}".lower()


def main(argv: Sequence[str]) -> int:
    try:
        said: Any = [described(name) for name in names()] if argv[0] == "--list" else described(argv[0])
    except DeploymentError as exc:
        print(json.dumps({"error": str(exc)}, ensure_ascii=False))
        return 2
    print(json.dumps(said, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
