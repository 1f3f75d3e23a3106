"""How the demo answers from a context that a message brings along.

Rule: a message with a line "Context:" and a line "Question: ...", in either order, gets the sentence of the
context that shares most words with the question, the first of equals, word for word. If none shares a word,
that is said. Knows nothing about where the context came from.
"""

from __future__ import annotations

import re

from modal_backend.engines.demo.words import words

_CONTEXT = re.compile(r"^(?:context|上下文) ?[:：]", re.IGNORECASE | re.MULTILINE)
_QUESTION = re.compile(r"^(?:question|问题) ?[:：](.*)$", re.IGNORECASE | re.MULTILINE)
_ENDS = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n")  # of a sentence, or of a line that is none


def found_in_context(message: str, *, chinese: bool) -> str | None:
    """What the context says; None for a message without a context or without a question."""
    begins, asked = _CONTEXT.search(message), list(_QUESTION.finditer(message))
    if begins is None or not asked:
        return None
    question = asked[-1]  # a document may have questions of its own, and they come before
    if begins.start() < question.start():
        context = message[begins.end() : question.start()]
    else:
        context = message[begins.end() :]
    wanted = words(question[1])
    sentences = [sentence.strip() for sentence in _ENDS.split(context)]
    shared = [len(wanted & words(sentence)) for sentence in sentences]
    if not max(shared):
        return "上下文里没有与问题相同的词。" if chinese else "The context shares no word with the question."
    told = sentences[shared.index(max(shared))]
    return f"上下文里说：“{told}”" if chinese else f"The context says: “{told}”"
