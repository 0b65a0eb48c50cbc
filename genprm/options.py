"""From the words on a command line to a verifier."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from genprm.budget import Budget
from genprm.errors import ConfigError, InputError
from genprm.models.base import ModelBackend, Sampling
from genprm.models.embedded import EMBEDDED
from genprm.styles import STYLES, GenPRM
from genprm.styles.examples import worked_example
from genprm.styles.execution import OutputFormat
from genprm.verifier import AsyncVerifier
from sandbox import Limits, Sandbox


class Backend(str, Enum):
    """Where the model runs."""

    TRANSFORMERS = "transformers"
    OPENAI = "openai"
    SCRIPTED = "scripted"


class ModelOptions(BaseModel):
    """Which model, and where it runs."""

    model_config = ConfigDict(frozen=True)

    backend: Backend | None = None
    model: str | None = None
    adapter: str | None = None
    base_url: str | None = None
    tokenizer: str | None = None

    @property
    def source(self) -> Backend:
        """The backend asked for, or the one that the other options imply."""
        if self.backend is not None:
            return self.backend
        return Backend.OPENAI if self.base_url else Backend.TRANSFORMERS

    @property
    def is_embedded(self) -> bool:
        """Whether it is the bare embedded model."""
        return self.source is Backend.TRANSFORMERS and self.model in (None, EMBEDDED) and self.adapter is None

    @property
    def label(self) -> str:
        """What the model is called before it is loaded."""
        name = self.model or self.base_url or EMBEDDED
        return f"{name}+{self.adapter}" if self.adapter else name

    def check(self) -> None:
        """Refuse options that contradict each other.

        Raises:
            ConfigError: they do.
        """
        if self.source is Backend.OPENAI and not self.base_url:
            raise ConfigError("--backend openai needs --base-url, the server's address that ends in /v1")
        if self.source is not Backend.OPENAI and (self.base_url or self.tokenizer):
            raise ConfigError("--base-url and --tokenizer go with --backend openai only")
        if self.source is Backend.SCRIPTED and not self.model:
            raise ConfigError("--backend scripted needs --model, the file with the script")
        if self.adapter and self.source is not Backend.TRANSFORMERS:
            raise ConfigError("--adapter goes with --backend transformers only; a server loads its adapters itself")
        if self.adapter and not Path(self.adapter).exists() and self.adapter.count("/") != 1:
            raise InputError(f"{self.adapter}: no such adapter folder")

    async def make_model(self) -> ModelBackend:
        """Load or reach the model.

        Raises:
            ModelError: it cannot be had.
        """
        if self.source is Backend.SCRIPTED:
            from genprm.models.scripted import ScriptedModel

            return ScriptedModel.from_file(self.model or "")
        if self.source is Backend.OPENAI:
            from genprm.models.openai_backend import OpenAIModel

            return await OpenAIModel.connect(self.base_url or "", self.model, tokenizer=self.tokenizer)
        from genprm.models.transformers_backend import TransformersModel

        return await asyncio.to_thread(TransformersModel.load, self.model or EMBEDDED, self.adapter)


class RunOptions(ModelOptions):
    """Everything that decides what a run's output is."""

    style: str = "genprm"
    analyze: bool = True
    code: bool = True
    execute: bool = True
    output_format: OutputFormat = OutputFormat.REFERENCE
    example: bool | None = None
    """Whether the model is shown a worked example first; by default only the bare embedded model is."""
    votes: int = Field(default=1, ge=1)
    seed: int = 0
    temperature: float = Field(default=0.6, ge=0)
    sandbox: str = "docker"
    budget: Budget = Budget()

    def check(self) -> None:
        """Refuse options that contradict each other.

        Raises:
            ConfigError: they do.
        """
        if self.style not in STYLES:
            raise ConfigError(f"--style {self.style}: there is no such style, but {', '.join(STYLES)}")
        super().check()
        if not (self.analyze or self.code):
            raise ConfigError("--no-analysis and --no-code together leave nothing to verify with")

    def make_style(self) -> GenPRM:
        """The style these options describe."""
        shown = self.is_embedded if self.example is None else self.example
        return GenPRM(
            analyze=self.analyze,
            verify=self.code,
            output_format=self.output_format,
            examples=worked_example() if shown else (),
        )

    def fingerprint_fields(self) -> dict[str, Any]:
        """The options that the output's content depends on; where code runs is not among them."""
        return self.model_dump(mode="json", exclude={"sandbox"})


@asynccontextmanager
async def open_sandbox(backend: str, budget: Budget, say: Callable[[str], None]) -> AsyncIterator[Sandbox]:
    """A sandbox for model-written code, up and running.

    Args:
        backend: ``docker``, ``local`` or ``unix:DIRECTORY``.
        budget: whose limit a single run has.
        say: gets the lines that a user should see.

    Raises:
        ConfigError: there is no such backend.
        SandboxError: no code can be run.
    """
    try:
        sandbox = Sandbox(backend, Limits(timeout=budget.run_seconds), sessions=1024, say=say)
    except ValueError as error:
        raise ConfigError(f"--sandbox: {error}") from error
    if backend == "local":
        say("sandbox: local. Code runs with your rights and your network: no protection from hostile code.")
    try:
        await sandbox.start()
        yield sandbox
    finally:
        await sandbox.close()


@asynccontextmanager
async def open_verifier(options: RunOptions, say: Callable[[str], None]) -> AsyncIterator[AsyncVerifier]:
    """A verifier as the options describe it: the sandbox is up and the model is loaded.

    Raises:
        GenprmError: the options contradict each other, or the model cannot be had.
        SandboxError: no code can be run.
    """
    options.check()
    async with AsyncExitStack() as stack:
        sandbox = None
        if options.code and options.execute:
            sandbox = await stack.enter_async_context(open_sandbox(options.sandbox, options.budget, say))
        model = await options.make_model()
        sampling = Sampling(temperature=options.temperature, seed=options.seed)
        style = options.make_style()
        async with AsyncVerifier(model, sandbox, style=style, budget=options.budget, sampling=sampling) as verifier:
            yield verifier
