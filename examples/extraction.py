# run: python examples/extraction.py
# needs openai, langchain-openai
"""A typed value out of a text: with the OpenAI SDK, and with LangChain in its two ways.

Behind a model with `guided: true` nothing else can be written; the answer of any other is checked by the
gateway, and asked for again if it does not fit. Its header `x-gateway-json` says which it was.
"""

import os
import sys
from typing import Literal

import openai
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field

os.environ.setdefault("OPENAI_BASE_URL", "http://localhost:8000/v1")
os.environ.setdefault("OPENAI_API_KEY", "unused")
MODEL = os.environ.get("MODEL", "gpt-4o-mini")
TEXT = 'Please send 12 of the "oak shelf" to Rotterdam by express, at 24.50 each.'


class Order(BaseModel):
    """An order, as a customer wrote it."""

    article: str = Field(description="what is ordered")
    quantity: int = Field(ge=1, description="how many of it")
    price: float = Field(description="of one")
    city: str = Field(description="where it goes")
    delivery: Literal["normal", "express"]


try:
    answer = openai.OpenAI().chat.completions.with_raw_response.parse(
        model=MODEL, messages=[{"role": "user", "content": TEXT}], response_format=Order
    )
except (openai.APIStatusError, openai.LengthFinishReasonError) as error:
    sys.exit(f"no order: {error}")  # 502 invalid_json_answer: no attempt fitted the schema
print("sdk:      ", answer.parse().choices[0].message.parsed)
print("verdict:  ", answer.headers.get("x-gateway-json"))

# LangChain goes by the name: with gpt-3.5-turbo and gpt-4 it warns, and does what is below instead.
llm = ChatOpenAI(model=MODEL)
print("langchain:", llm.with_structured_output(Order).invoke(TEXT))

# A call of a function, for a model that was trained on tools and is not guided.
print("as a tool:", llm.with_structured_output(Order, method="function_calling").invoke(TEXT))
