"""Tool dialects: how families of models write calls in plain text, one file each.

``DIALECTS[name].watch(tools, ids)`` makes the filter for one choice (``gateway.core.events.Filter``). A new
dialect is a grammar in a file of its own, a line here, and golden files in ``tests/core/tools/``.
``reader`` is what grammars are written in; ``json_text``, ``python_text`` and ``values`` are what they share.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.core.tools.chatglm3 import CHATGLM3
from gateway.core.tools.command_r import COMMAND_R
from gateway.core.tools.deepseek import DEEPSEEK
from gateway.core.tools.dialect import Dialect, Said
from gateway.core.tools.generic import GENERIC
from gateway.core.tools.glm4 import GLM4
from gateway.core.tools.glm45 import GLM45
from gateway.core.tools.harmony import HARMONY
from gateway.core.tools.hermes import HERMES
from gateway.core.tools.llama import LLAMA
from gateway.core.tools.mistral import MISTRAL
from gateway.core.tools.phi4 import PHI4_MINI
from gateway.core.tools.pythonic import PYTHONIC
from gateway.core.tools.qwen3_coder import QWEN3_CODER

DIALECTS: Mapping[str, Dialect] = {
    "chatglm3": CHATGLM3,
    "command_r": COMMAND_R,
    "deepseek": DEEPSEEK,
    "generic": GENERIC,
    "glm4": GLM4,
    "glm45": GLM45,
    "harmony": HARMONY,
    "hermes": HERMES,
    "llama3_json": LLAMA,
    "mistral": MISTRAL,
    "phi4_mini": PHI4_MINI,
    "pythonic": PYTHONIC,
    "qwen3_coder": QWEN3_CODER,
}

__all__ = ["DIALECTS", "Dialect", "Said"]
