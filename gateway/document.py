"""A YAML file as plain data.

Rule: a key written twice is an error, because the first would be lost without a word; what is wrong with a
file is one line. However it is written, reading it ends soon: its size is bounded, and what it holds with
every alias written out. Knows nothing about what a configuration means.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import yaml

MAX_FILE = 4 << 20  # bytes; ten thousand models are less
MAX_VALUES = 500_000  # keys, values, lists and mappings, an alias counting for what it stands for


class _Loader(yaml.SafeLoader):
    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None and _values(node, {}) > MAX_VALUES:
            raise yaml.MarkedYAMLError(problem=f"it holds more than {MAX_VALUES} values")
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key in (key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key in seen and key != "<<":
                raise yaml.MarkedYAMLError(problem=f"{key} is written twice", problem_mark=node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _values(node: yaml.Node, known: dict[int, int]) -> int:
    """How many nodes there are with every alias written out; ``known``: of those that were counted, by id."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = 0  # not known yet
        below = chain(*node.value) if isinstance(node, yaml.MappingNode) else node.value
        known[id(node)] = 1 + sum(_values(each, known) for each in below)
    if not known[id(node)]:
        raise yaml.MarkedYAMLError(problem="it holds an alias of itself", problem_mark=node.start_mark)
    return known[id(node)]


def document(path: Path) -> Any:
    """What the file holds. Raises ``ValueError``, in one line that names the file."""
    try:
        return yaml.load(_text(path), _Loader)
    except OSError as exc:
        raise ValueError(f"cannot read {path}: {exc.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text") from None
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply") from None
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(f"{path} is not valid YAML{where}: {getattr(exc, 'problem', exc)}") from None


def _text(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(MAX_FILE + 1)  # it may be a device that never ends
    if len(content) > MAX_FILE:
        raise ValueError(f"{path} is larger than {MAX_FILE >> 20} MiB")
    return content.decode("utf-8")
