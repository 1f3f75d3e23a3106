"""``config schema``: the JSON schema of the configuration, as a file may be written.

Rule: says what the settings accept beyond their fields: one ``upstream``, and an upstream without ``kind``.
"""

from __future__ import annotations

from typing import Any

from gateway.settings import Settings


def schema() -> dict[str, Any]:
    document = Settings.model_json_schema()
    document["title"] = "modal-gateway"
    model = document["$defs"]["Model"]
    upstreams = model["properties"]["upstreams"]
    model["properties"]["upstream"] = {**upstreams["items"], "description": "the only upstream"}
    model["required"] = [name for name in model.get("required", ()) if name != "upstreams"]
    model["oneOf"] = [{"required": ["upstream"]}, {"required": ["upstreams"]}]
    for kind, reference in upstreams["items"]["discriminator"]["mapping"].items():
        if kind != "prompt":  # which is meant where none is given
            definition = document["$defs"][reference.rpartition("/")[2]]
            definition["required"] = ["kind", *definition.get("required", ())]
    return document
