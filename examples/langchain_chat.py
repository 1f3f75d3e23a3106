# run: python examples/langchain_chat.py
# needs langchain-openai
"""ChatOpenAI with nothing but the name of its model, alone and in a chain."""

import asyncio
import os

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI

os.environ.setdefault("OPENAI_BASE_URL", "http://localhost:8000/v1")
os.environ.setdefault("OPENAI_API_KEY", "unused")
MODEL = os.environ.get("MODEL", "gpt-4o-mini")
llm = ChatOpenAI(model=MODEL)

answer = llm.invoke("你好")
print("invoke:", answer.text)
print("usage: ", answer.usage_metadata)
print("stop:  ", llm.invoke("你好", stop=["欢迎"]).text)
print("batch: ", [answer.text for answer in llm.batch(["count to 3", "count to 5"])])

prompt = ChatPromptTemplate.from_messages([("system", "You are a parrot."), ("user", "repeat: {words}")])
chain = prompt | llm | StrOutputParser()

print("chain: ", end="")
for piece in chain.stream({"words": "春眠不觉晓，处处闻啼鸟。"}):
    print(piece, end="", flush=True)
print()


async def stream() -> None:
    print("async: ", end="")
    async for piece in chain.astream({"words": "The quick brown fox jumps over the lazy dog."}):
        print(piece, end="", flush=True)
    print()


asyncio.run(stream())
