# run: python examples/langchain_modal.py
# needs langchain-community
"""LangChain's own class for endpoints of prompts, at the gateway: the prompt as it is, without a template.

The class sends no headers, so the key is the password of the address; and it wants the prompt back before the
answer: ``?echo=1``.
"""

import os

from langchain_community.llms import Modal
from langchain_core.prompts import PromptTemplate

os.environ.setdefault("OPENAI_BASE_URL", "http://localhost:8000/v1")
os.environ.setdefault("OPENAI_API_KEY", "unused")
MODEL = os.environ.get("MODEL", "gpt-4o-mini")
url, key = os.environ["OPENAI_BASE_URL"], os.environ["OPENAI_API_KEY"]

llm = Modal()  # today's class loses what it is constructed with
llm.endpoint_url = url.replace("://", f"://x:{key}@", 1) + f"/prompt/{MODEL}?echo=1"
llm.model_kwargs = {"max_tokens": 100}

question = "count to 5"
print("invoke:", llm.invoke(question).removeprefix(question))

prompt = PromptTemplate.from_template("count to {number}")
print("chain: ", (prompt | llm).invoke({"number": 3}))
