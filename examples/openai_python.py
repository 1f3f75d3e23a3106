# run: python examples/openai_python.py
# needs openai
"""The OpenAI SDK with nothing changed but its environment."""

import os

import openai

os.environ.setdefault("OPENAI_BASE_URL", "http://localhost:8000/v1")
os.environ.setdefault("OPENAI_API_KEY", "unused")
MODEL = os.environ.get("MODEL", "gpt-4o-mini")
client = openai.OpenAI()

print("models: ", ", ".join(model.id for model in client.models.list()))

answer = client.chat.completions.create(
    model=MODEL,
    messages=[{"role": "system", "content": "You are kind."}, {"role": "user", "content": "你好"}],
)
print("whole:  ", answer.choices[0].message.content)
print("usage:  ", answer.usage.total_tokens if answer.usage else "unknown", "tokens")

answer = client.chat.completions.create(
    model=MODEL, messages=[{"role": "user", "content": "你好"}], stop=["欢迎"], n=2
)
print("stopped:", *[choice.message.content for choice in answer.choices])

# A stream is ended by leaving the block: the model behind the gateway stops generating at once.
print("stream: ", end="")
with client.chat.completions.create(
    model=MODEL, messages=[{"role": "user", "content": "count to 1000"}], stream=True
) as stream:
    text = ""
    for chunk in stream:
        text += chunk.choices[0].delta.content or ""
        if " 10 " in text:
            break
print(text, "...")

try:
    client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "你好"}], temperature=3
    )
except openai.BadRequestError as error:
    print("refused:", error)
