"""LangChain's tests of embeddings, for OpenAIEmbeddings in front of the gateway at CHAT_URL."""

import os
from typing import Any

from langchain_openai import OpenAIEmbeddings
from langchain_tests.integration_tests import EmbeddingsIntegrationTests


class TestOpenAIEmbeddings(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[OpenAIEmbeddings]:
        return OpenAIEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {
            "model": "text-embedding-3-small",
            "base_url": os.environ["CHAT_URL"],
            "api_key": "unused",
            "check_embedding_ctx_length": False,  # else it sends ids, which need a table from the network
        }
