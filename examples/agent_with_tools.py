# run: python examples/agent_with_tools.py
# needs openai
"""An agent: the model calls functions of this program until it can answer.

The model behind the gateway only writes text; the gateway tells it of the tools and reads its calls.
"""

import json
import os
from collections.abc import Callable
from typing import Any

import openai

os.environ.setdefault("OPENAI_BASE_URL", "http://localhost:8000/v1")
os.environ.setdefault("OPENAI_API_KEY", "unused")
MODEL = os.environ.get("MODEL", "gpt-4o-mini")
client = openai.OpenAI()


def get_weather(city: str, days: int = 1) -> str:
    return f"{city}: sun for {days} days"


def add(a: float, b: float) -> str:
    return str(a + b)


def tool(name: str, description: str, required: list[str], **properties: dict[str, str]) -> Any:
    parameters = {"type": "object", "properties": properties, "required": required}
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


NUMBER, TEXT = {"type": "number"}, {"type": "string"}
FUNCTIONS: dict[str, Callable[..., str]] = {"get_weather": get_weather, "add": add}
TOOLS = [
    tool("get_weather", "The weather of a city.", ["city"], city=TEXT, days={"type": "integer"}),
    tool("add", "Add two numbers.", ["a", "b"], a=NUMBER, b=NUMBER),
]
MOST = 5  # turns


def answer(question: str) -> str:
    messages: list[Any] = [{"role": "user", "content": question}]
    for _ in range(MOST):
        reply = client.chat.completions.create(model=MODEL, messages=messages, tools=TOOLS)
        message = reply.choices[0].message
        if not message.tool_calls:
            return message.content or ""
        messages.append(message)
        for call in message.tool_calls:
            if call.type == "function":
                print(f"  calls {call.function.name}({call.function.arguments})")
                result = FUNCTIONS[call.function.name](**json.loads(call.function.arguments))
                messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    return "That took too many turns."


for question in ("What is the weather in Paris for 3 days?", "Please add 2.5 and 4", "Who are you?"):
    print(question)
    print(" ", answer(question))
