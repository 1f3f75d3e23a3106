"""A chat server as a LangChain LLM, as written in 2023: a class that posts, and cuts at the stops."""

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import requests
from langchain.callbacks.manager import CallbackManagerForLLMRun
from langchain.llms.base import LLM
from langchain.llms.utils import enforce_stop_tokens
from langchain.schema.output import GenerationChunk

# The one line that changed since: it was the address of FastChat's API server.
URL = os.environ.get("CHAT_URL", "http://localhost:8000")


class ChatGLM(LLM):
    endpoint: str = URL + "/chat/completions"
    model: str = "chatglm2-6b"
    temperature: float = 0.1
    max_token: int = 2048
    send_stop: bool = False

    @property
    def _llm_type(self) -> str:
        return "chatglm2-6b"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return {"endpoint": self.endpoint, "model": self.model, "temperature": self.temperature}

    def _body(self, prompt: str, stop: list[str] | None, stream: bool) -> dict[str, Any]:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": self.temperature,
            "max_tokens": self.max_token,
            "stream": stream,
        }
        if self.send_stop and stop:
            body["stop"] = stop
        return body

    def _call(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> str:
        headers = {"Content-Type": "application/json"}
        body = json.dumps(self._body(prompt, stop, stream=False))
        response = requests.post(self.endpoint, headers=headers, data=body)
        if response.status_code != 200:
            raise ValueError(f"{response.status_code}: {response.text}")
        text = response.json()["choices"][0]["message"]["content"]
        if stop is not None:
            text = enforce_stop_tokens(text, stop)
        if run_manager:
            run_manager.on_text(text, end="\n")
        return text

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        body = self._body(prompt, stop, stream=True)
        with requests.post(self.endpoint, json=body, stream=True) as response:
            response.raise_for_status()
            for line in response.iter_lines():
                data = line.decode("utf-8")
                if not data.startswith("data: ") or data == "data: [DONE]":
                    continue
                for choice in json.loads(data[len("data: ") :])["choices"]:
                    chunk = GenerationChunk(text=choice["delta"].get("content") or "")
                    yield chunk
                    if run_manager:
                        run_manager.on_llm_new_token(chunk.text, chunk=chunk)
