# run: python examples/streaming.py "count to 30"
# needs openai
# also: python examples/streaming.py --tools "What is the weather in Paris?"
"""Type an answer into the terminal as it arrives: thoughts dimmed, calls of tools, time to the first token.

Ctrl-C leaves the stream, and the model behind the gateway stops generating. An answer that breaks off ends in
an error; it is never taken for a shorter answer.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import openai

os.environ.setdefault("OPENAI_BASE_URL", "http://localhost:8000/v1")
os.environ.setdefault("OPENAI_API_KEY", "unused")
MODEL = os.environ.get("MODEL", "gpt-4o-mini")
DIM, PLAIN = ("\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "")
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "get_weather", "description": "The weather of a city.", "parameters": CITY}


def pieces(delta: Any) -> Iterator[tuple[str, str]]:
    """What a chunk adds, each with what it belongs to."""
    if thought := getattr(delta, "reasoning_content", None):  # the SDK keeps fields that it does not know
        yield "thought", thought
    if delta.content:
        yield "answer", delta.content
    for call in delta.tool_calls or []:
        if call.function.name:
            yield f"call {call.index}", f"calls {call.function.name} "
        if call.function.arguments:
            yield f"call {call.index}", call.function.arguments


def show(stream: openai.Stream[Any], began: float) -> str:
    """Print the answer; what there is to say about it. Raises ``openai.APIError`` if it breaks off."""
    first, usage, finish, last = 0.0, None, None, None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:  # the chunk with the usage has none
            finish = choice.finish_reason or finish
            for kind, text in pieces(choice.delta):
                first = first or time.perf_counter() - began
                print("\n" * (last not in (None, kind)), end="")
                print(f"{DIM}{text}{PLAIN}" if kind == "thought" else text, end="", flush=True)
                last = kind
    if finish is None:
        raise openai.APIError("the stream ended before the answer did", stream.response.request, body=None)
    took = time.perf_counter() - began
    tokens = usage.completion_tokens if usage else 0
    return f"first token after {1000 * first:.0f} ms; {tokens} tokens in {took:.2f} s; finish: {finish}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Type an answer into the terminal as it arrives.")
    parser.add_argument("--tools", action="store_true", help="offer the model a function, and show its calls")
    parser.add_argument("question", nargs="*", default=["你好"])
    given = parser.parse_args()
    asked: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": " ".join(given.question)}],
        "stream_options": {"include_usage": True},
    }
    if given.tools:
        asked["tools"] = [{"type": "function", "function": WEATHER}]
    began = time.perf_counter()
    try:
        with openai.OpenAI() as client, client.chat.completions.create(stream=True, **asked) as stream:
            figures = show(stream, began)
    except openai.APIError as error:
        print(f"\nerror: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    print(f"\n{DIM}[{figures}]{PLAIN}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
