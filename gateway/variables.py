"""``${NAME}`` and ``${NAME:-default}`` in the values of a configuration.

Rule: pure; the environment is passed in. A variable that is empty counts as absent where there is a default.
Keys are left as they are. Knows nothing about what the values mean.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


def expand(value: Any, environ: Mapping[str, str], where: str = "") -> Any:
    """``value`` with its variables replaced, however deep; ``where`` is its path in the configuration.

    Raises ``ValueError`` that names the key.
    """
    if isinstance(value, dict):
        return {
            key: expand(item, environ, f"{where}.{key}" if where else str(key)) for key, item in value.items()
        }
    if isinstance(value, list):
        return [expand(item, environ, f"{where}[{i}]") for i, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def variable(match: re.Match[str]) -> str:
        name, default = match.group(1), match.group(2)
        if (found := environ.get(name) or default) is None:
            raise ValueError(
                f"{where}: the environment variable {name} is not set (or write ${{{name}:-default}})"
            )
        return found

    return _VARIABLE.sub(variable, value)
