"""The compose profile ``monitoring``: a real Prometheus collects with our configuration what our dashboard asks for."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.serve.conftest import Serve
from tests.serve.test_app import ROW

ROOT = Path(__file__).parents[2]
BINARIES = ROOT / ".venv" / "prometheus" / "usr" / "bin"
"""Where ``make`` unpacks Debian's Prometheus."""
CONFIG = ROOT / "deploy" / "prometheus.yml"
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "dashboards" / "genprm.json").read_text())
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]

pytestmark = pytest.mark.skipif(
    not BINARIES.exists() and not os.environ.get("CI"), reason="there is no Prometheus: make .venv/prometheus"
)


@asynccontextmanager
async def collecting(folder: Path, port: int) -> AsyncIterator[httpx.AsyncClient]:
    """Prometheus with our configuration, but for the server's address and more often."""
    config = CONFIG.read_text()
    assert yaml.safe_load(config)["scrape_configs"][0]["static_configs"][0]["targets"] == ["api:8000"]
    (folder / "prometheus.yml").write_text(config.replace("api:8000", f"127.0.0.1:{port}").replace("5s", "1s"))
    process = subprocess.Popen(
        [BINARIES / "prometheus", "--config.file", folder / "prometheus.yml", "--storage.tsdb.path", folder / "data",
         "--web.listen-address", "127.0.0.1:0"], stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(60):
            found = None
            while found is None:
                line = await asyncio.to_thread(process.stderr.readline)  # type: ignore[union-attr]
                assert line, "Prometheus ended"
                found = re.search(r'Listening on" address=127\.0\.0\.1:(\d+)', line)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{found[1]}", timeout=30) as client:
            yield client
    finally:
        process.terminate()
        process.communicate(timeout=30)


async def asked(prometheus: httpx.AsyncClient, expression: str) -> list[Any]:
    answer = (await prometheus.get("/api/v1/query", params={"query": expression})).json()
    assert answer["status"] == "success", answer
    return answer["data"]["result"]


def test_its_own_tool_finds_the_configuration_right():
    command = [BINARIES / "promtool", "check", "config", CONFIG]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "SUCCESS" in done.stdout) == (0, True), done.stderr


async def test_the_dashboard_shows_what_the_server_did(serve: Serve, tmp_path: Path):
    async with serve() as served, collecting(tmp_path, served.port) as prometheus:
        async with asyncio.timeout(60):
            while not await asked(prometheus, "genprm_rows_in_flight"):
                await asyncio.sleep(0.2)
            for steps in (["one", "two"], ["one", "wrong"], ["no verdict"]):
                assert (await served.client.post("/v1/verify", json={**ROW, "steps": steps})).status_code == 200
            while not all([await asked(prometheus, expression) for expression in EXPRESSIONS]):
                await asyncio.sleep(0.5)
            [kinds] = [each for each in EXPRESSIONS if "genprm_steps_total" in each]
            while not all(float(series["value"][1]) > 0 for series in await asked(prometheus, kinds)):
                await asyncio.sleep(0.5)
        verdicts = {series["metric"]["verdict"] for series in await asked(prometheus, "genprm_steps_total > 0")}
        assert verdicts == {"correct", "incorrect", "unscored"}
