"""The tiny model and engines on it, made once for all tests of this folder.

Where torch is not installed there is nothing to collect: `make test-torch` makes an environment that has it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

collect_ignore_glob = [] if importlib.util.find_spec("torch") else ["test_*.py"]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.backend.engines.tiny import save

    return save(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
async def engine(model_folder: Path, anyio_backend: str) -> AsyncIterator[Any]:
    from modal_backend.engines import make_engine

    made = make_engine("transformers", {"model": str(model_folder), "max_batch": 8, "dtype": "float32"})
    yield made
    await made.close()
