"""A real server in the loop of the tests, with a scripted model whose every answer can be held back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import uvicorn

from genprm.models.scripted import Rule, ScriptedModel
from genprm.serve.app import ServeSettings, create_app
from genprm.serve.connections import Connection
from genprm.verifier import AsyncVerifier
from sandbox import Sandbox

RULES = (
    Rule(when=r"(?s)slow code.*```python\n$", text="import time\ntime.sleep(60)\n```\n"),
    Rule(when=r"```python\n$", text="print(6 * 7)\n```\n"),
    Rule(when=r"(?s)slow model.*step by step: $", text="Hm.</analyze>\n", seconds=60),
    Rule(when=r"(?s)a little slow.*step by step: $", text="Hm.</analyze>\n", seconds=1.0),
    Rule(when="step by step: $", text="It looks right.</analyze>\n"),
    Rule(when=r"(?s)no verdict.*boxed\{$", choice={"Maybe": 1.0}),
    Rule(when=r"(?s)wrong.*boxed\{$", yes=0.1),
    Rule(when=r"boxed\{$", yes=0.9),
    Rule(text="So it is.\n</verify>\n<output>\n"),
)


class Model(ScriptedModel):
    """Fails where a prompt says so, and works on few rows at once."""

    def __init__(self) -> None:
        super().__init__(RULES, remembers=False)
        self.concurrency = 4
        self.fails: Exception | None = None
        self.refused = 0

    async def complete(self, prompt: str, **given: Any) -> Any:
        if self.fails is not None and "failing" in prompt:
            self.refused += 1
            raise self.fails
        return await super().complete(prompt, **given)


@dataclass
class Served:
    """A server that is up."""

    client: httpx.AsyncClient
    model: Model
    port: int
    connections: set[Any]
    """Uvicorn's own."""

    async def figure(self, name: str) -> float:
        """What /metrics says."""
        lines = (await self.client.get("/metrics")).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name) and "_created" not in line)

    async def until(self, name: str, value: float, seconds: float = 10) -> None:
        """Wait for a figure."""
        async with asyncio.timeout(seconds):
            while await self.figure(name) != value:
                await asyncio.sleep(0.02)


Serve = Callable[..., AbstractAsyncContextManager[Served]]


@pytest.fixture
def serve(local_sandbox: Sandbox) -> Serve:
    @asynccontextmanager
    async def start(**settings: Any) -> AsyncIterator[Served]:
        model = Model()
        app = create_app(AsyncVerifier(model, local_sandbox), ServeSettings(**settings))
        server = uvicorn.Server(
            uvicorn.Config(
                app, port=0, log_level="warning", lifespan="off", timeout_graceful_shutdown=5, http=Connection
            )
        )
        task = asyncio.create_task(server._serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                yield Served(client, model, port, server.server_state.connections)
        finally:
            server.should_exit = True
            await task

    return start
