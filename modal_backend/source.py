"""Where a deployment comes from: a file, a preset's name, or the variable that a container gets it in.

Rule: the content of the file travels, not its path, because the container has no other file of this machine.
Knows nothing about what a deployment means.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from modal_backend.deployment import Deployment, DeploymentError, read

PRESETS = Path(__file__).parent / "presets"
CHOSEN = "MODAL_GATEWAY_MODEL"
"""Names the preset or file that ``modal deploy`` is to deploy."""
CARRIED = "MODAL_GATEWAY_DEPLOYMENT"
"""Holds the deployment inside the container, as JSON."""
DEFAULT = "demo"


def names() -> list[str]:
    """The presets that ship with this package."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def find(name_or_file: str) -> Path:
    """The file that is meant: a path, or a preset's name. Raises ``DeploymentError``."""
    path = Path(name_or_file)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise DeploymentError(f"there is no file {name_or_file}")
        return path
    if name_or_file not in names():
        close = difflib.get_close_matches(name_or_file, names(), n=1, cutoff=0.4)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise DeploymentError(f"there is no preset {name_or_file}{hint} (a file of your own ends in .yaml)")
    return PRESETS / f"{name_or_file}.yaml"


def load(name_or_file: str) -> tuple[Deployment, Mapping[str, Any]]:
    """The deployment, and the plain data it was read from. Raises ``DeploymentError``."""
    import yaml  # not in a container, which gets JSON

    path = find(name_or_file)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        return read(path.stem, data), {"name": path.stem, **data}
    except (OSError, UnicodeDecodeError) as exc:
        raise DeploymentError(f"cannot read {path}: {exc}") from None
    except yaml.YAMLError as exc:
        raise DeploymentError(f"{path} is not valid YAML: {' '.join(str(exc).split())}") from None
    except DeploymentError as exc:
        raise DeploymentError(f"{path.name}: {exc}") from None


def chosen(environ: Mapping[str, str] = os.environ) -> tuple[Deployment, str]:
    """The deployment that the environment means, and its JSON. Raises ``DeploymentError``.

    A container finds the content itself there; ``modal deploy`` finds a name or a file.
    """
    if carried := environ.get(CARRIED):
        data = json.loads(carried)
        return read(data["name"], data), carried
    deployment, data = load(environ.get(CHOSEN) or DEFAULT)
    return deployment, json.dumps(data, ensure_ascii=False, sort_keys=True)


def on_this_machine(deployment: Deployment, engine: str | None, model: str | None) -> Deployment:
    """The same deployment for this machine: another engine, or weights that lie here."""
    changed: dict[str, Any] = {"model": model, "revision": "main"} if model else {}
    if engine is not None and engine != deployment.engine:
        changed |= {"engine": engine, "serve": "web", "snapshot": "none", "arguments": {}}
    return replace(deployment, **changed)
