"""What Dockerfiles and .dockerignore say, read from them."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatch

from tests.conftest import ROOT

DOCKERFILES = ("Dockerfile", "modal_backend/Dockerfile")
PINNED = re.compile(r"[\w./-]+:v?\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?")


def instructions(name: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile with their arguments, continued lines joined."""
    text = "\n".join(line for line in (ROOT / name).read_text().splitlines() if not line.startswith("#"))
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines if line.strip()]


def last(name: str, instruction: str) -> str:
    return [arguments for word, arguments in instructions(name) if word == instruction][-1]


def environment(name: str) -> dict[str, str]:
    """What the last stage sets."""
    pairs = [pair.partition("=") for pair in last(name, "ENV").split()]
    return {variable: value for variable, _, value in pairs}


def command(name: str) -> list[str]:
    """What a container of it runs, unless it is told otherwise."""
    words: list[str] = json.loads(last(name, "ENTRYPOINT"))
    return words + (json.loads(last(name, "CMD")) if name == "Dockerfile" else [])


def ignored(path: str) -> bool:
    """What .dockerignore says of a path: the last line that fits it, or a folder above it, decides."""
    verdict = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!").removeprefix("**/")
            parts = path.split("/")
            above = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
            fits = any(fnmatch(part, pattern) for part in (parts if "**/" in line else above))
            verdict = not line.startswith("!") if fits else verdict
    return verdict
