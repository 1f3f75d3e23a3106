"""Guided decoding: which tokens may come next, so that the answer fits a JSON schema, a regex or a grammar.

Rule: the guide decides what may come, the model what does; an answer that was not cut fits. JSON comes
without needless white space, on which a model could go on for ever.
The library is llguidance: one wheel of 3 MB for CPython 3.9 and newer without dependencies, where xgrammar
needs Triton as well and outlines-core, which compiles a schema to one regular expression, knows neither
grammars nor recursive schemas.
"""

from __future__ import annotations

import json
from typing import Any

import torch

from modal_backend.engine import BadRequest, Request


class Guides:
    """Makes guides for one tokenizer, which takes up to a second to prepare."""

    def __init__(self, tokenizer: Any, vocabulary: int, ends: frozenset[int]) -> None:
        from llguidance import LLTokenizer

        backend = tokenizer.backend_tokenizer
        self._vocabulary = vocabulary
        self._tokenizer = LLTokenizer(backend.to_str(), n_vocab=vocabulary, eos_token=sorted(ends))

    def guide(self, request: Request) -> Guide | None:
        """The request's guide, None if it wants none; raises ``BadRequest`` for one that cannot be."""
        from llguidance import LLMatcher, grammar_from

        try:
            if request.json_schema is not None:
                compact = {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"}
                schema = json.dumps(request.json_schema)
                grammar = LLMatcher.grammar_from_json_schema(schema, overrides=compact)
            elif request.regex is not None:
                grammar = LLMatcher.grammar_from_regex(request.regex)
            elif request.grammar is not None:
                grammar = grammar_from("grammar", request.grammar)
            else:
                return None
        except ValueError as exc:
            raise BadRequest(f"the guide cannot be followed: {exc}") from None
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise BadRequest(f"the guide cannot be followed: {matcher.get_error()}")
        return Guide(matcher, self._vocabulary)


class Guide:
    """One answer's way through its grammar."""

    def __init__(self, matcher: Any, vocabulary: int) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary

    def apply(self, row: torch.Tensor) -> None:
        """Forbid in ``row`` (the logits of one answer, changed in place) all that may not come next."""
        mask = bytearray(self._matcher.compute_bitmask())
        packed = torch.frombuffer(mask, dtype=torch.uint8).to(row.device)
        bits = (packed[:, None] >> torch.arange(8, dtype=torch.uint8, device=row.device)) & 1  # lowest first
        row.masked_fill_(bits.flatten()[: self._vocabulary] == 0, -torch.inf)

    def take(self, token: int) -> bool:
        """Go on with ``token``; True if the answer is complete and nothing may follow."""
        self._matcher.consume_token(token)
        if self._matcher.is_error():
            raise BadRequest(f"the guide failed: {self._matcher.get_error()}")
        return bool(self._matcher.is_stopped())
