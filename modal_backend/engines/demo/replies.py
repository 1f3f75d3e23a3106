"""What the demo says to a question: a few rules that a reader can follow.

Rule: the first rule that fits answers; what no rule fits is shown back, with the word that no model runs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from modal_backend.engines.demo.contexts import found_in_context

GREETING = "你好！我是人工智能助手 ChatGLM2-6B，很高兴见到你，欢迎问我任何问题。"
MOST = 10_000  # as far as it counts
MOST_TOLD = 4  # images of which more is told than that they came
SHOWN = 200  # characters of a question that are shown back

_GREETED = re.compile(r"你好[。！!.]?")
_COUNT = re.compile(r"\bcount (?:from 1 |up )?to (\d+)|(?:从1)?数到\s*(\d+)", re.IGNORECASE)
_REPEAT = re.compile(
    r"(?:please )?(?:repeat|echo|say)\b[^:：\n]{0,30}[:：]\s*(.+)"
    r"|(?:请)?(?:重复|复述)[^:：\n]{0,10}[:：]\s*(.+)",
    re.IGNORECASE | re.DOTALL,
)
_CHINESE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")


def reply(question: str, images: Sequence[str] = ()) -> str:
    """The answer to ``question``; ``images`` is what can be told of those that came with it."""
    chinese = _CHINESE.search(question) is not None
    return _seen(images, chinese=chinese) + _said(question, chinese=chinese)


def _said(question: str, *, chinese: bool) -> str:
    if _GREETED.fullmatch(question):
        return GREETING
    if (told := found_in_context(question, chinese=chinese)) is not None:
        return told
    if found := _COUNT.search(question):
        return _count(int((found[1] or found[2])[:9]), chinese=chinese)
    if found := _REPEAT.fullmatch(question):
        return found[1] or found[2]
    shown = question if len(question) <= SHOWN else question[:SHOWN] + "…"
    if chinese:
        return (
            "这里没有模型在运行：这是 modal-gateway 的演示引擎，只按几条固定的规则回答。"
            f"你说的是：“{shown}”。可以试试“数到20”或“重复：任意文字”。"
        )
    return (
        "No model runs here: this is modal-gateway's demo engine, which follows a few fixed rules. "
        f"You said: “{shown}”. Try “count to 20” or “repeat: any text”."
    )


def _count(last: int, *, chinese: bool) -> str:
    if last > MOST:
        return f"最多数到{MOST}。" if chinese else f"I count to {MOST} at most."
    return " ".join(str(number) for number in range(1, last + 1))


def _seen(images: Sequence[str], *, chinese: bool) -> str:
    if not images:
        return ""
    count, told = len(images), "; ".join(images[:MOST_TOLD])
    if chinese:
        return f"（收到{count}张图片：{told}。演示引擎看不到它们。）"
    return f"({count} image{'s' if count > 1 else ''} received: {told}. The demo engine cannot see.) "
