# run: python examples/modal_ask_documents.py "How much is a late tool?"
# needs modal, langchain-openai
# on modal: modal run examples/modal_ask_documents.py --question "How much is a late tool?"
"""The same as a function on Modal, which takes the address of the gateway and a key from a Secret:

    modal secret create modal-gateway OPENAI_BASE_URL=https://gateway.example.com/v1 OPENAI_API_KEY=sk-...

MODEL and EMBEDDING_MODEL may be in it too. The run line calls the function on this machine, with no account.
"""

import sys
from pathlib import Path

import modal

QUESTION = "How much is a late tool?"
HERE, THERE = Path(__file__).parent / "documents", "/documents"
image = (
    modal.Image.debian_slim(python_version="3.12")
    .uv_pip_install("langchain-openai>=1,<2")
    .add_local_python_source("ask_documents")
    .add_local_dir(HERE, THERE)
)
gateway = modal.Secret.from_name("modal-gateway", required_keys=["OPENAI_BASE_URL", "OPENAI_API_KEY"])
app = modal.App("ask-documents", image=image)


@app.function(secrets=[gateway], timeout=900)  # seconds: the model may have to wake up first
def ask(question: str) -> tuple[str, list[str]]:
    """The answer, and the documents it was taken from."""
    from ask_documents import chain  # where LangChain is: in the image, and in an environment that has it

    told = chain(HERE if modal.is_local() else Path(THERE)).invoke(question)
    return told["answer"], sorted({passage.source for passage in told["passages"]})


def show(answer: str, sources: list[str]) -> None:
    print("answer: ", answer)
    print("sources:", ", ".join(sources))


@app.local_entrypoint()
def main(question: str = QUESTION) -> None:
    show(*ask.remote(question))


if __name__ == "__main__":
    show(*ask.local(" ".join(sys.argv[1:]) or QUESTION))
