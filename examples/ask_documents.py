# run: python examples/ask_documents.py "How much is a late tool?"
# needs langchain-openai
"""Questions over documents: vectors find the passages, a model answers from them, both through the gateway.

The documents are those of a library of tools, in examples/documents. With your own gateway, MODEL is a chat
model and EMBEDDING_MODEL one that makes vectors.
"""

import heapq
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

os.environ.setdefault("OPENAI_BASE_URL", "http://localhost:8000/v1")
os.environ.setdefault("OPENAI_API_KEY", "unused")
MODEL = os.environ.get("MODEL", "gpt-4o-mini")
EMBEDDING_MODEL = os.environ.get("EMBEDDING_MODEL", "text-embedding-3-small")
FOLDER = Path(__file__).parent / "documents"
NEAREST = 3  # passages that the model is shown
PROMPT = ChatPromptTemplate.from_template(
    "Answer the question from the context alone. If it does not say, say so.\n\n"
    "Context:\n{context}\n\nQuestion: {question}"
)


@dataclass(frozen=True)
class Passage:
    source: str
    text: str
    vector: list[float]


def index(folder: Path, embeddings: OpenAIEmbeddings) -> list[Passage]:
    """Every paragraph of the documents with its vector. Larger collections keep theirs in a database."""
    found = [
        (file.name, " ".join(text.split()))
        for file in sorted(folder.glob("*.md"))
        for text in file.read_text(encoding="utf-8").split("\n\n")
        if not text.startswith("#")
    ]
    vectors = embeddings.embed_documents([text for _, text in found])
    return [Passage(*each, vector) for each, vector in zip(found, vectors, strict=True)]


def chain(folder: Path = FOLDER) -> Runnable[str, dict[str, Any]]:
    """From a question to ``{"question", "passages", "answer"}``."""
    embeddings = OpenAIEmbeddings(
        model=EMBEDDING_MODEL,
        check_embedding_ctx_length=False,  # send texts, not the token ids of a model of OpenAI
    )
    passages = index(folder, embeddings)

    def nearest(question: str) -> list[Passage]:
        asked = embeddings.embed_query(question)

        def near(passage: Passage) -> float:  # vectors of length 1: the cosine of the angle between them
            return sum(a * b for a, b in zip(asked, passage.vector, strict=True))

        return heapq.nlargest(NEAREST, passages, key=near)

    def context(found: dict[str, list[Passage]]) -> str:
        return "\n\n".join(passage.text for passage in found["passages"])

    llm = ChatOpenAI(model=MODEL, temperature=0)
    answer = RunnablePassthrough.assign(context=context) | PROMPT | llm | StrOutputParser()
    retrieved = {"question": RunnablePassthrough(), "passages": RunnableLambda(nearest)}
    return retrieved | RunnablePassthrough.assign(answer=answer)


if __name__ == "__main__":
    told = chain().invoke(" ".join(sys.argv[1:]) or "How much is a late tool?")
    for passage in told["passages"]:
        print(f"{passage.source}: {passage.text}")
    print("answer:", told["answer"])
