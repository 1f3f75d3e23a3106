"""``keys create``: a new API key.

Rule: the key is shown once, on standard output and alone there, so that ``$(...)`` takes it; what the
configuration needs of it is its SHA-256.
"""

from __future__ import annotations

import hashlib
import json as jsonlib
import re
import secrets
import sys

from gateway.cli.show import CommandError, as_json

PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")  # what YAML takes for a word; `no` and `on` are seen to below
WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


def create(name: str, *, json: bool) -> None:
    """Print a key for this name, and the line that belongs under ``auth.keys``."""
    if not name.strip() or not name.isprintable():
        raise CommandError("--name must be a name that can be read")
    key = "sk-" + secrets.token_urlsafe(32)
    digest = hashlib.sha256(key.encode()).hexdigest()
    if json:
        as_json({"name": name, "key": key, "sha256": digest})
        return
    word = PLAIN.fullmatch(name) and name.lower() not in WORDS
    shown = name if word else jsonlib.dumps(name, ensure_ascii=False)
    print(key)
    sys.stdout.flush()
    print(
        "This key is shown only now. Under auth.keys of the configuration it is this line:\n"
        f'  - {{name: {shown}, sha256: "{digest}"}}\n'
        "Without such a line the gateway takes the key from GATEWAY_API_KEY.",
        file=sys.stderr,
    )
