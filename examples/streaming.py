# run: python examples/streaming.py "count to 30"
# needs openai
"""Type an answer into the terminal as it arrives, with the time to its first token and its pace."""

import os
import sys
import time

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://localhost:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "unused"),
)
question = " ".join(sys.argv[1:]) or "你好"

began = time.perf_counter()
first = None
usage = None
with client.chat.completions.create(
    model="gpt-3.5-turbo",
    messages=[{"role": "user", "content": question}],
    stream=True,
    stream_options={"include_usage": True},
) as stream:
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:  # the chunk with the usage has none
            if choice.delta.content:
                first = first or time.perf_counter()
                print(choice.delta.content, end="", flush=True)

took = time.perf_counter() - began
print()
if first and usage:
    print(
        f"[first token after {1000 * (first - began):.0f} ms; "
        f"{usage.completion_tokens} tokens in {took:.2f} s, {usage.completion_tokens / took:.0f} a second]"
    )
