"""Answers that are JSON: what was asked for, how to ask a model for it, and whether its answer is it.

``parse_format`` reads a request's ``response_format``; ``instructed`` tells a model that is not constrained;
``Extract`` passes on only the JSON of what it says; ``verdict`` judges the whole; ``repair`` asks again.
"""

from gateway.core.structured.extract import Extract
from gateway.core.structured.form import Format, parse_format
from gateway.core.structured.verdict import verdict
from gateway.core.structured.words import instructed, repair

__all__ = ["Extract", "Format", "instructed", "parse_format", "repair", "verdict"]
