"""What happens to each field of a chat request: one row a field.

Rule: a known field is honoured, ignored aloud (header ``x-gateway-ignored`` and a metric), or rejected with
a 400 that names it. Nothing is dropped in silence and no number is changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(slots=True, frozen=True)
class Parameter:
    """One field and its fate.

    ``does``: ``honour`` (passed on, as ``argument`` in the prompt contract), ``shape`` (decides how the
    gateway works or answers), ``ignore`` (no effect here, said so), ``reject`` (a 400: ``why``).
    """

    name: str
    does: Literal["honour", "shape", "ignore", "reject"]
    argument: str | None = None
    why: str = ""


PARAMETERS: tuple[Parameter, ...] = (
    Parameter("model", "shape", why="chooses the model; answers carry the name that was asked for"),
    Parameter("messages", "shape", why="rendered by the model's template"),
    Parameter("stream", "shape", why="an SSE stream, or one JSON answer"),
    Parameter("stream_options", "shape", why="include_usage adds a last chunk with the usage"),
    Parameter("n", "shape", why="that many calls side by side; choice i gets seed + i"),
    Parameter("user", "shape", why="kept in the request's record; sent on to upstreams that speak chat"),
    Parameter("stop", "honour", "stop", "sent upstream and enforced here, literally"),
    Parameter("max_tokens", "honour", "max_tokens", "more than the model's max_output_tokens is a 400"),
    Parameter("max_completion_tokens", "honour", "max_tokens", "goes before max_tokens"),
    Parameter("temperature", "honour", "temperature", "0 to 2"),
    Parameter("top_p", "honour", "top_p", "0 to 1"),
    Parameter("top_k", "honour", "top_k", "-1 means off"),
    Parameter("min_p", "honour", "min_p", "0 to 1"),
    Parameter("presence_penalty", "honour", "presence_penalty", "-2 to 2"),
    Parameter("frequency_penalty", "honour", "frequency_penalty", "-2 to 2"),
    Parameter("repetition_penalty", "honour", "repetition_penalty", "above 0, up to 10"),
    Parameter("seed", "honour", "seed", "a 64-bit integer"),
    Parameter("logit_bias", "honour", "logit_bias", "token id to a bias from -100 to 100"),
    Parameter("stop_token_ids", "honour", "stop_token_ids", "up to 64 ids"),
    Parameter("logprobs", "honour", "logprobs", "a 400 unless the model has `logprobs: true`"),
    Parameter("top_logprobs", "honour", "logprobs", "0 to 20, with logprobs"),
    Parameter("tools", "shape", why="shown as the template does, or in words; calls are read from the text"),
    Parameter("functions", "shape", why="the older form of tools; the answer has function_call"),
    Parameter("response_format", "shape", why="held to by the backend (`guided`), or asked for and checked"),
    Parameter("chat_template_kwargs", "shape", why="variables of the template, of those that are allowed"),
    Parameter("audio", "reject", why="this gateway answers with text"),
    Parameter("tool_choice", "shape", why="none, auto, required or a name; ignored aloud without tools"),
    Parameter("function_call", "shape", why="the older form of tool_choice"),
    Parameter("parallel_tool_calls", "shape", why="false: the answer ends behind its first call"),
    Parameter("modalities", "ignore", why="text is the only one"),
    Parameter("reasoning_effort", "shape", why="a variable of the template, where it has it"),
    Parameter("verbosity", "ignore", why="no such control in the contract"),
    Parameter("prediction", "ignore", why="no such control in the contract"),
    Parameter("store", "ignore", why="chat answers are never stored"),
    Parameter("metadata", "ignore", why="chat answers are never stored"),
    Parameter("service_tier", "ignore", why="there is one tier"),
    Parameter("safety_identifier", "ignore", why="OpenAI's own"),
    Parameter("prompt_cache_key", "shape", why="calls with one key go to one container where the edge can"),
    Parameter("prompt_cache_retention", "ignore", why="OpenAI's own"),
    Parameter("moderation", "ignore", why="OpenAI's own"),
    Parameter("web_search_options", "ignore", why="no hosted tools"),
)

SAMPLING: dict[str, str] = {
    row.name: row.argument
    for row in PARAMETERS
    if row.argument
    and row.name not in ("stop", "max_tokens", "max_completion_tokens", "logprobs", "top_logprobs")
}
"""Request field -> contract argument, for fields that pass through unchanged."""

DEFAULTABLE = frozenset(SAMPLING.values()) | {"max_tokens", "stop"}
"""Arguments that a model's ``defaults`` may set."""

REJECTED = tuple(row for row in PARAMETERS if row.does == "reject")
IGNORED = frozenset(row.name for row in PARAMETERS if row.does == "ignore")
KNOWN = frozenset(row.name for row in PARAMETERS)
OPENAI = KNOWN - {"model", "stream", "stream_options", "n"}
"""Fields that an upstream which speaks chat understands itself."""
