"""LangChain's tests of a chat model, for a model of random weights behind the gateway at CHAT_URL.

NOISE, a JSON object, gives the reason for each test that must fail because the model says nothing sensible.
"""

import json
import os
from typing import Any

import pytest
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests

NOISE = json.loads(os.environ["NOISE"])


@pytest.fixture(autouse=True)
def noise(request: pytest.FixtureRequest) -> None:
    if reason := NOISE.get(request.function.__name__):
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))


class TestTinyModel(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[ChatOpenAI]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "model": "tiny",
            "base_url": os.environ["CHAT_URL"],
            "api_key": "unused",
            "stream_usage": True,
        }

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return "tiny-again"
