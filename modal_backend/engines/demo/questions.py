"""Find the last user message in a rendered prompt.

Rule: a prompt that ends where an assistant would speak shows by that which template made it. Anything else is
a bare prompt, and is the question as a whole.
Knows the marks of common templates as data; knows nothing about roles it does not need.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

TURNS: Mapping[str, tuple[str, ...]] = {
    "答：": ("问：",),
    "<|assistant|>": ("<|user|>", "<|prompter|>"),
    "<|im_start|>assistant": ("<|im_start|>user",),
    "<|im_start|>assistant<|im_sep|>": ("<|im_start|>user<|im_sep|>",),
    "<|start_header_id|>assistant<|end_header_id|>": ("<|start_header_id|>user<|end_header_id|>",),
    "<start_of_turn>model": ("<start_of_turn>user",),
    "[/INST]": ("[INST]",),
    "<reserved_107>": ("<reserved_106>",),
    "<｜Assistant｜>": ("<｜User｜>",),
    "<|start|>assistant": ("<|start|>user<|message|>",),
    "<|Bot|>:": ("<|User|>:",),
    "<|ASSISTANT|>": ("<|USER|>",),
    "<|answer|>": ("<|prompt|>",),
    "<bot>:": ("<human>:",),
    "GPT4 Correct Assistant:": ("GPT4 Correct User:",),
    "ASSISTANT:": ("USER:",),
    "GPT:": ("USER:",),
    "Assistant:": ("User:", "Human:"),
    "### Assistant:": ("### Human:", "### User:"),
    "### Assistant": ("### User",),
    "### Response:": ("### Instruction:",),
    "Falcon:": ("User:",),
}
"""What stands before the assistant's turn, and what may stand before the user's turn ahead of it."""

_BEGUN = re.compile(r"(?:<think>\s*(?:</think>)?|<s>|\s)*\Z")  # what may stand after the assistant's mark
_SYSTEM = re.compile(r"\A\s*<<SYS>>.*?<</SYS>>", re.DOTALL)  # llama-2 puts it into the first user turn
_OVER = re.compile(
    r"<\|(?:im_end|eot_id|end|end_of_turn|endoftext|EOT)\|>|<end_of_turn>|<eoh>|</s>|### End"
)  # what may end the user's turn


def question(prompt: str) -> str:
    """The text of the last user turn, without the white space around it."""
    rest = prompt[: _BEGUN.search(prompt).start()]  # type: ignore[union-attr]  # it matches the empty end, too
    for assistant in sorted(TURNS, key=len, reverse=True):
        if rest.endswith(assistant):
            said = rest[: -len(assistant)]
            starts = [at + len(user) for user in TURNS[assistant] if (at := said.rfind(user)) >= 0]
            if starts:
                return _content(said[max(starts) :])
    return prompt.strip()


def _content(turn: str) -> str:
    turn = _SYSTEM.sub("", turn).strip().removeprefix("<s>")
    return _OVER.split(turn, maxsplit=1)[0].strip()
