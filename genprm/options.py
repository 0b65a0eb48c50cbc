"""From the words on a command line to a verifier."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from genprm.aggregate import Aggregate
from genprm.budget import Budget
from genprm.errors import ConfigError, InputError
from genprm.models.base import PATIENCE, ModelBackend, Sampling
from genprm.models.embedded import EMBEDDED, NO_ADAPTER, SHIPPED, shipped_adapter
from genprm.models.files import files_mark
from genprm.styles import STYLES, Direct, Discriminative, GenPRM, History, Judge, PRMFormat, Style, ThinkPRM
from genprm.styles.examples import worked_example
from genprm.styles.execution import OutputFormat
from genprm.styles.known import adapter_style, prm_format, style_warning
from genprm.styles.thinkprm import MAX_ROUNDS
from genprm.verifier import AsyncVerifier
from genprm.votes import SURE, VotePlan
from sandbox import Limits, Sandbox


class Backend(str, Enum):
    """Where the model runs."""

    TRANSFORMERS = "transformers"
    VLLM = "vllm"
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
        """Whether it is the embedded model as it is."""
        return self._stands_on_embedded and self.lora is None

    @property
    def _stands_on_embedded(self) -> bool:
        return self.source in (Backend.TRANSFORMERS, Backend.VLLM) and self.model in (None, EMBEDDED)

    @property
    def lora(self) -> str | None:
        """The adapter to put on the model."""
        return None if self.adapter == NO_ADAPTER else self.adapter

    @property
    def label(self) -> str:
        """What the model is called before it is loaded."""
        name = self.model or self.base_url or EMBEDDED
        return f"{name}+{self.lora}" if self.lora else name

    def check(self) -> None:
        """Refuse options that contradict each other.

        Raises:
            ConfigError: they do.
        """
        for name in ("model", "adapter", "base_url", "tokenizer"):
            if getattr(self, name) == "":
                raise ConfigError(
                    f"the option for the {name.replace('_', ' ')} is empty: a shell variable may be unset"
                )
        if self.source is Backend.OPENAI and not self.base_url:
            raise ConfigError("--backend openai needs --base-url, the server's address that ends in /v1")
        if self.source is not Backend.OPENAI and (self.base_url or self.tokenizer):
            raise ConfigError("--base-url and --tokenizer go with --backend openai only")
        if self.source is Backend.SCRIPTED and not self.model:
            raise ConfigError("--backend scripted needs --model, the file with the script")
        if self.lora and self.source is Backend.SCRIPTED:
            raise ConfigError("--adapter: a script has none")
        local = self.source in (Backend.TRANSFORMERS, Backend.VLLM)
        if self.lora and local and not Path(self.lora).exists() and self.lora.count("/") != 1:
            raise InputError(f"{self.lora}: no such adapter folder")

    async def make_model(
        self, *, reward_head: bool = False, patience: float = PATIENCE, slots: int | None = None
    ) -> ModelBackend:
        """Load or reach the model.

        Args:
            reward_head: it is to be read by its reward head, not to write.
            patience: seconds for which a server that is not there is asked again.
            slots: sequences at once of a model in transformers, for which there must be memory.

        Raises:
            ModelError: it cannot be had.
        """
        if reward_head:
            from genprm.models.reward_head import RewardHead

            return await asyncio.to_thread(RewardHead.load, self.model or "")
        if self.source is Backend.SCRIPTED:
            from genprm.models.scripted import ScriptedModel

            return ScriptedModel.from_file(self.model or "")
        if self.source is Backend.OPENAI:
            from genprm.models.openai_backend import OpenAIModel

            return await OpenAIModel.connect(
                self.base_url or "", self.model, tokenizer=self.tokenizer, adapter=self.lora, patience=patience
            )
        if self.source is Backend.VLLM:
            from genprm.models.vllm_backend import VLLMModel

            # A forked engine, as on a GPU, holds the socket by which a command hears of signals: the SIGTERM that ends
            # the engine would interrupt the command.
            os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
            return await asyncio.to_thread(VLLMModel.load, self.model or EMBEDDED, self.lora)
        from genprm.models.transformers_backend import SLOTS, TransformersModel

        return await asyncio.to_thread(TransformersModel.load, self.model or EMBEDDED, self.lora, slots or SLOTS)


class RunOptions(ModelOptions):
    """Everything that decides what a run's output is."""

    style: str = "genprm"
    """A style's name, or two with ``>`` between them: a cheap one, and the one to ask where that is not sure."""
    sure: float = Field(default=SURE, gt=0.5, le=1)
    """Least probability of each of the cheap style's verdicts, for it to be taken."""
    history: History = History.FULL
    rounds: int = Field(default=1, ge=1, le=MAX_ROUNDS)
    prm_format: PRMFormat | None = None
    aggregate: Aggregate | None = None
    stop_at_first_error: bool = False
    analyze: bool = True
    code: bool = True
    execute: bool = True
    output_format: OutputFormat = OutputFormat.REFERENCE
    example: bool | None = None
    """Whether the model is shown a worked example first; by default only the bare embedded model is."""
    votes: VotePlan = VotePlan()
    seed: int = 0
    temperature: float | None = Field(default=None, ge=0)
    """None: GenPRM's; see `is_likeliest_first`."""
    sandbox: str = "docker"
    in_flight: int | None = Field(default=None, ge=1)
    budget: Budget = Budget()

    @property
    def style_names(self) -> list[str]:
        """One style, or the cheap and the dear one."""
        return self.style.split(">")

    @property
    def is_shipped(self) -> bool:
        """Whether it is the embedded model with our adapter, which was trained for the style ``genprm``."""
        return self.adapter is None and self._stands_on_embedded and GenPRM.name in self.style_names

    @property
    def sampling(self) -> Sampling:
        """How tokens are drawn."""
        usual = Sampling(seed=self.seed)
        return usual if self.temperature is None else usual.model_copy(update={"temperature": self.temperature})

    @property
    def is_likeliest_first(self) -> bool:
        """Whether the first vote is not drawn: unless a temperature is asked for, the embedded verifier's."""
        return self.is_shipped and self.temperature is None

    @property
    def lora(self) -> str | None:
        return str(shipped_adapter()) if self.is_shipped else super().lora

    def check(self) -> None:
        """Refuse options that contradict each other.

        Raises:
            ConfigError: they do.
        """
        names = self.style_names
        for name in names:
            if name not in STYLES:
                raise ConfigError(f"--style {name}: there is no such style, but {', '.join(STYLES)}")
        if len(names) > 2 or len(set(names)) < len(names):
            raise ConfigError(f"--style {self.style}: expected one style, or two different ones with > between them")
        super().check()
        if self.rounds > 1 and "thinkprm" not in names:
            raise ConfigError("--rounds goes with --style thinkprm only")
        if self.rounds > 1 and self.votes.most > 1:
            raise ConfigError("--rounds goes with one vote: scale sequentially or in parallel")
        if self.history is not History.FULL and not {"genprm", "direct"} & set(names):
            raise ConfigError("--history goes with the styles genprm and direct only")
        if self.prm_format is not None and "discriminative" not in names:
            raise ConfigError("--prm-format goes with --style discriminative only")
        if "discriminative" in names and self._prm_format is None:
            choices = ", ".join(each.value for each in PRMFormat)
            raise ConfigError(f"--style discriminative: {self.label} is not known: choose --prm-format {choices}")
        if PRMFormat.QWEN is self._prm_format and "discriminative" in names:
            self._check_head()
        if self.stop_at_first_error and self.aggregate is Aggregate.MAJORITY:
            raise ConfigError("--stop-at-first-error needs the mean over votes: a majority looks at whole chains")
        if GenPRM.name not in names and (
            not (self.analyze and self.code)
            or self.example is not None
            or self.output_format is not OutputFormat.REFERENCE
        ):
            raise ConfigError("--no-analysis, --no-code, --output-format and --example go with --style genprm only")
        if len(names) < 2 and self.sure != SURE:
            raise ConfigError("--sure goes with two styles only: --style CHEAP>DEAR")
        if len(names) > 1 and names[0] == Judge.name:
            raise ConfigError(f"--style {self.style}: {names[0]} answers with a word, and is never unsure")
        if not (self.analyze or self.code):
            raise ConfigError("--no-analysis and --no-code together leave nothing to verify with")

    def _check_head(self) -> None:
        if self.source is not Backend.TRANSFORMERS:
            raise ConfigError("--prm-format qwen reads a reward head: --backend transformers only")
        if len(self.style_names) > 1:
            raise ConfigError("--style: a model with a reward head cannot write, so there is no other style to ask")
        if self.lora:
            raise ConfigError("--adapter does not go with --prm-format qwen")

    @property
    def _prm_format(self) -> PRMFormat | None:
        return self.prm_format or prm_format(self.model or "")

    @property
    def needs_head(self) -> bool:
        """Whether the model is read by a reward head."""
        return self.style_names == [Discriminative.name] and self._prm_format is PRMFormat.QWEN

    @property
    def executes(self) -> bool:
        """Whether code will be run, so that a sandbox is needed."""
        return "genprm" in self.style_names and self.code and self.execute

    def make_styles(self) -> list[Style]:
        """The styles these options describe, the one to ask first at the head."""
        return [self._make_style(name) for name in self.style_names]

    def _make_style(self, name: str) -> Style:
        if name == GenPRM.name:
            shown = self.is_embedded if self.example is None else self.example
            return GenPRM(
                analyze=self.analyze,
                verify=self.code,
                output_format=self.output_format,
                examples=worked_example() if shown else (),
                history=self.history,
            )
        if name == Direct.name:
            return Direct(history=self.history)
        if name == ThinkPRM.name:
            return ThinkPRM(rounds=self.rounds)
        if name == Discriminative.name:
            return Discriminative(self._prm_format or PRMFormat.RLHFLOW)
        return STYLES[name]()

    def fingerprint_fields(self) -> dict[str, Any]:
        """The options that the output's content depends on.

        Where code runs is not among them, nor where a model that is named is served: on a cluster, elsewhere each day.
        What lies in a folder here is: another adapter may have been trained into it since.
        """
        given = self.model_dump(mode="json", exclude={"sandbox", "in_flight"})
        if self.source is not Backend.OPENAI:
            given["files"] = [files_mark(name) for name in (self.model, self.lora) if name]
        elif self.model:
            given["base_url"] = "any"
        return {**given, "adapter": SHIPPED} if self.is_shipped else given


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
async def open_verifier(
    options: RunOptions, say: Callable[[str], None], *, patience: float = PATIENCE
) -> AsyncIterator[AsyncVerifier]:
    """A verifier as the options describe it: the sandbox is up and the model is loaded.

    Args:
        options: what is wanted.
        say: gets the lines that a user should see.
        patience: seconds for which a model's server that is not there is asked again.

    Raises:
        GenprmError: the options contradict each other, or the model cannot be had.
        SandboxError: no code can be run.
    """
    options.check()
    async with AsyncExitStack() as stack:
        sandbox = None
        if options.executes:
            sandbox = await stack.enter_async_context(open_sandbox(options.sandbox, options.budget, say))
        *cheap, style = options.make_styles()
        model = await options.make_model(reward_head=options.needs_head, patience=patience, slots=options.in_flight)
        async with AsyncVerifier(
            model, sandbox, style=style, budget=options.budget,
            sampling=options.sampling, likeliest_first=options.is_likeliest_first, votes=options.votes,
            aggregate=options.aggregate, stop_at_first_error=options.stop_at_first_error,
            cheap=cheap[0] if cheap else None, sure=options.sure, in_flight=options.in_flight,
        ) as verifier:  # fmt: skip
            if any(each.chats for each in (*cheap, style)):
                model.render([{"role": "user", "content": "?"}], "")  # a model without a template fails here, at once
            for each in (*cheap, style):
                if warning := warning_of(options, model, each):
                    say(warning)
            yield verifier


def warning_of(options: RunOptions, model: ModelBackend, style: Style) -> str | None:
    """What a user should know of a model in a style, if there is something."""
    if options.is_shipped and style.name != GenPRM.name:
        return f"warning: the embedded model's adapter was trained for the style {GenPRM.name}, not for {style.name}"
    if options.lora and not options.is_shipped and (trained := adapter_style(options.lora)) not in (None, style.name):
        return f"warning: the adapter {options.lora} was trained for the style {trained}, not for {style.name}"
    if options.source is Backend.SCRIPTED or options.lora or options.is_embedded or options.example:
        return None
    return style_warning(model.name, style.name)
