# run: python examples/modal_dummy_endpoint.py
# needs modal
# deploy: modal deploy examples/modal_dummy_endpoint.py
# then: modal-gateway serve --url http://127.0.0.1:8001
"""The smallest endpoint of the prompt contract: a Modal app that always answers "hello world".

The run line serves it on this machine, with no account. Once it is deployed, --url is the address that
Modal printed: https://YOUR-WORKSPACE--dummy-llm-prompt.modal.run
"""

import os
from typing import Any

import modal

app = modal.App("dummy-llm", image=modal.Image.debian_slim().uv_pip_install("fastapi[standard]"))


@app.function()
@modal.fastapi_endpoint(method="POST")
def prompt(request: dict[str, Any]) -> dict[str, str]:
    return {"prompt": "hello world"}  # where a model would complete request["prompt"]


if __name__ == "__main__":
    import uvicorn
    from fastapi import FastAPI

    def local(request: dict[str, Any]) -> dict[str, str]:
        return prompt.local(request)

    api = FastAPI()
    api.post("/")(local)
    uvicorn.run(api, host="127.0.0.1", port=int(os.environ.get("PORT", "8001")))
