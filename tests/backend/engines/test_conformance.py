"""The engines that run models conform: over sockets, and by the commands as a person types them."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.conformance.fit import Credentials
from gateway.conformance.run import CHECKS, EMBEDDING, Report, examine
from gateway.conformance.verdict import Result
from gateway.settings import settings_from
from modal_backend.contract import contract_app
from modal_backend.engines import make_engine
from modal_backend.engines.transformers_engine import TransformersEngine
from tests.backend.conftest import Host
from tests.cli.process import run, running
from tests.serve.house import soon

pytestmark = pytest.mark.torch

PATIENCE = 30.0  # seconds for one answer
MODEL_S_WORDS = ("stops", "unicode", "BOS")
"""What a model with random weights may leave open."""
SUITES: Mapping[str, set[str]] = {
    "transformers": {"whole", *CHECKS},
    "embed": {"whole", *EMBEDDING},
}


def unproven(report: Report) -> dict[str, Result]:
    assert report.good, report.verdicts
    return {name: found.result for name, found in report.verdicts.items() if found.result is not Result.OK}


async def test_the_transformers_engine_conforms(host: Host, engine: TransformersEngine) -> None:
    url = host.serve(contract_app(engine))
    report = await soon(examine(url, Credentials(), PATIENCE), 4 * PATIENCE)
    left_open = unproven(report)
    assert set(left_open) <= set(MODEL_S_WORDS)
    assert set(left_open.values()) <= {Result.INCONCLUSIVE}
    assert engine.load.running == 0


async def test_the_embedding_engine_conforms(host: Host, model_folder: Path) -> None:
    made = make_engine("embed", {"model": str(model_folder)})
    url = host.serve(contract_app(made))
    report = await soon(examine(url, Credentials(), PATIENCE), 4 * PATIENCE)
    assert unproven(report) == {"whole": Result.UNSUPPORTED}
    assert report.config == {"models": {"my-model": {"upstream": {"url": url}}}}
    await made.close()


@pytest.mark.parametrize("engine_name", SUITES)
def test_a_container_on_this_machine_and_its_examination(
    tmp_path: Path, model_folder: Path, engine_name: str
) -> None:
    deployment = {"model": "me/mine", "engine": engine_name, "template": "plain"}
    (tmp_path / "mine.yaml").write_text(json.dumps(deployment))  # JSON is YAML
    options = ("--local", "--engine", engine_name, "--model", str(model_folder), "--port", "0")
    with running("backend", "mine.yaml", *options, cwd=tmp_path, until='"ready"') as container:
        ready: dict[str, Any] = json.loads(container.shown)
        assert ready["engine"] == engine_name
        done = run("conformance", ready["url"], cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        code, out, err = container.stop(signal.SIGTERM)
    assert (code, out) == (0, "")
    assert "Traceback" not in err
    table, printed, summary = done.stdout.split("\n\n")
    heads, *rows = table.splitlines()
    assert heads.split() == ["CHECK", "RESULT", "WHY"]
    assert {row[:16].strip() for row in rows} == SUITES[engine_name]
    assert not any("wrong" in row for row in rows)
    assert summary.endswith("; nothing is wrong\n")
    [model] = settings_from(yaml.safe_load(printed), {}).models.values()
    upstream: Any = model.upstreams[0]
    assert upstream.url == ready["url"]
