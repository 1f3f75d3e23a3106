"""What the tests of the templates share: the conversations of the golden files, and every template."""

import json
from pathlib import Path
from typing import Any

from gateway.core.template import Template
from gateway.templates import load, names

HERE = Path(__file__).parent
GOLDEN = HERE / "golden"
CONVERSATIONS: dict[str, dict[str, Any]] = json.loads((HERE / "conversations.json").read_text("utf-8"))
TEMPLATES: tuple[Template, ...] = tuple(load(name) for name in names())
