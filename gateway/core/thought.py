"""Whether a prompt leaves the model in the middle of a thought, and how one is ended before an answer.

Rule: the end of the prompt decides: it opens a thought, or has closed it. Where it does neither, what the
model's facts say holds, unless the client switched thinking off. Knows nothing about what an answer says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.core.call import Marks

SWITCHES = ("enable_thinking", "thinking")  # variables by which templates are told whether to think
USUAL = Marks()


def thought(prompt: str, marks: Marks | None, chosen: Mapping[str, Any]) -> Marks | None:
    """The marks to look for behind this prompt; ``chosen`` are the options that its template heard."""
    if marks is None:
        return None
    said = [chosen[name] for name in SWITCHES if name in chosen]
    silenced = bool(said) and not any(said)
    opens = _opens(prompt, marks)
    return marks._replace(starts_open=opens if opens is not None else marks.starts_open and not silenced)


def closed(prompt: str, marks: Marks | None) -> tuple[str, Marks | None]:
    """The prompt with its thought ended, and the marks behind it.

    For an answer that cannot begin with the end of a thought. ``marks`` are those of ``thought``; without
    any, a prompt may open one nevertheless.
    """
    inside = marks.starts_open if marks is not None else _opens(prompt, USUAL)
    if not inside:
        return prompt, marks
    ended = f"{prompt}{(marks or USUAL).end}\n\n"
    return ended, marks and marks._replace(starts_open=False)


def _opens(prompt: str, marks: Marks) -> bool | None:
    """Whether the prompt opens a thought or closes one; None where it ends in neither mark."""
    end = prompt.rstrip()
    if end.endswith(marks.start):
        return True
    return False if end.endswith(marks.end) else None
