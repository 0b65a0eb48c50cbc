"""`genprm label`: problems in, labelled solutions out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from genprm.cli import shared
from genprm.cli.shared import EXIT_UNSCORED, say
from genprm.errors import ConfigError, InputError
from genprm.extras import require
from genprm.options import ModelOptions
from genprm.policy import Policy
from genprm.problems import read_problems
from genprm.records import Problem
from rationale_synth.cli.engine import LIBRARIES, Actors, Decontaminate, Engine, EngineOption, RayAddress
from rationale_synth.jobs import LabelProgress, open_label_run, run_label_job, take_input
from rationale_synth.label import LabelOptions
from rationale_synth.label_output import LabelSummary, write_labels
from rationale_synth.labels import Rule, RuleName
from rationale_synth.overlap import Decontaminated
from rationale_synth.policy import PolicySpec
from rationale_synth.ray_engine import Cluster, LabelWorker, run_on_ray
from rationale_synth.records import Outcome
from rationale_synth.run_folder import INPUT, RunFolder, read_config
from rationale_synth.segment import Segmentation
from rationale_synth.settle import Settling
from rationale_synth.simulate import Strength

SIMULATED = "simulated"


def label(
    problems: Annotated[
        str,
        typer.Argument(
            help="Rows {id, problem, answer}, or with GSM8K's or MATH's columns: JSONL, JSON array, Parquet, - for "
            "stdin, or a dataset of the hub: OWNER/NAME, or OWNER/NAME:CONFIG@SPLIT."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The run's folder; an interrupted run goes on there.")],
    policy: Annotated[
        str | None,
        typer.Option(
            help="Model that writes the solutions: hub id or folder; for a server, its name there. simulated, "
            "simulated-weak or simulated-strong: no model, but known step values. Default: embedded."
        ),
    ] = None,
    backend: shared.BackendOption = None,
    adapter: shared.Adapter = None,
    base_url: shared.BaseUrl = None,
    tokenizer: shared.Tokenizer = None,
    rule: Annotated[RuleName, typer.Option(help="From values to labels. A finished run can be labelled anew.")] = (
        RuleName.RPE
    ),
    threshold: Annotated[float | None, typer.Option(help="The rule's constant. Default: its paper's best.")] = None,
    samples: Annotated[int, typer.Option(help="Solutions sampled from each problem, per wave.")] = 16,
    max_samples: Annotated[int, typer.Option(help="Most solutions sampled while all are right or all are wrong.")] = 64,
    solutions: Annotated[int, typer.Option(help="Most solutions labelled of each problem.")] = 4,
    rollouts: Annotated[
        int | None, typer.Option(help="K, rollouts of each prefix. Default: GenPRM's 128, 64 or 32 by pass rate.")
    ] = None,
    fixed: Annotated[bool, typer.Option("--fixed", help="Draw all K, also where the label is settled.")] = False,
    confidence: Annotated[
        float | None, typer.Option(help="How sure a label must be before its rollouts stop. Default: 0.9; soft 0.95.")
    ] = None,
    segmentation: Annotated[Segmentation, typer.Option(help="How a solution is cut into steps.")] = (
        Segmentation.BLANK_LINE
    ),
    example: Annotated[
        bool | None,
        typer.Option("--example/--no-example", help="Show a solved problem. Default: only to the embedded model."),
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Most tokens of a solution, and of a rollout.")] = 1024,
    temperature: Annotated[float, typer.Option(help="Of the policy.")] = 1.0,
    seed: shared.Seed = 0,
    engine: EngineOption = Engine.LOCAL,
    ray_address: RayAddress = None,
    actors: Actors = 2,
    decontaminate: Decontaminate = None,
    limit: Annotated[int | None, typer.Option(help="Only the first problems.")] = None,
) -> None:
    """Label solutions step by step: sample them, complete every prefix, see how often the gold answer is reached.

    The same command goes on with an interrupted run; nothing that is finished is done again. On a finished run it
    labels anew, by another --rule if one is given, without sampling.

    Exit status 0: every problem was settled. 1: some failed, and are tried again by the same command; or nothing was
    labelled. 2: it could not begin, or not go on.
    """
    with shared.refusing():
        require("data", LIBRARIES)
        model = ModelOptions(backend=backend, model=policy, adapter=adapter, base_url=base_url, tokenizer=tokenizer)
        simulated = _strength(policy) if backend is None and not base_url else None
        if simulated is None:
            model.check()
            if temperature == 0:
                raise ConfigError("--temperature 0: all rollouts of a step would be the same")
        wanted = Rule(name=rule, threshold=threshold)
        sampled_for = _rule_of_run(output, wanted)
        settling = None if fixed else _settling(sampled_for, confidence)
        options = LabelOptions(
            rule=sampled_for, samples=samples, max_samples=max(samples, max_samples),
            solutions=solutions, rollouts=rollouts, settling=settling, segmentation=segmentation,
            example=model.is_embedded and simulated is None if example is None else example,
            max_tokens=max_tokens, temperature=temperature, seed=seed,
        )  # fmt: skip
        kept = Decontaminated(read_problems(problems, limit), decontaminate or [])
        mark = take_input(kept, output)
        if decontaminate:
            say(f"{kept.dropped} problems are also in an evaluation file, and are left out")
        run = open_label_run(output, options, model.label, mark)
    with run:
        spec = PolicySpec(model=model, simulated=simulated, answers=_answers(run) if simulated else {})
        cluster = Cluster(address=ray_address, actors=actors) if engine is Engine.RAY else None
        outcomes = _label(run, spec, options, cluster)
        with shared.refusing():
            summary = write_labels(run, wanted, model.label)
    if options.rule != wanted:
        say(f"the values were drawn to settle {options.rule}: of the labels by {wanted} see how many are settled")
    _print_summary(summary, output)
    if not summary.solutions:
        say("nothing was labelled: that takes a problem of which some solutions are right and some are wrong")
    raise typer.Exit(EXIT_UNSCORED if outcomes[Outcome.FAILED] or not summary.solutions else 0)


def _label(run: RunFolder, spec: PolicySpec, options: LabelOptions, cluster: Cluster | None) -> Counter[Outcome]:
    total, done = run.config.input.rows, run.done
    if done == total:
        return Counter()
    if done:
        say(f"{done} of {total} problems are done already: going on from {run.path}")
    if cluster is not None:
        progress = LabelProgress(run)
        with shared.refusing(), progress:
            run_on_ray(run, LabelWorker(spec, options), cluster, progress)
        return progress.outcomes
    return shared.run(_label_here(run, spec, options))


async def _label_here(run: RunFolder, spec: PolicySpec, options: LabelOptions) -> Counter[Outcome]:
    model = await spec.open()
    try:
        return await run_label_job(run, Policy(model, options.sampling), options)
    finally:
        await model.close()


def _strength(policy: str | None) -> Strength | None:
    if policy is None or policy.partition("-")[0] != SIMULATED or Path(policy).exists():
        return None
    try:
        return Strength(policy.partition("-")[2] or Strength.MEDIUM)
    except ValueError:
        names = ", ".join(f"{SIMULATED}-{strength.value}" for strength in Strength)
        raise ConfigError(f"--policy {policy}: there is no such policy, but {names}") from None


def _answers(run: RunFolder) -> dict[str, str]:
    with open(run.path / INPUT, "rb") as file:
        return {problem.problem: problem.answer for problem in map(Problem.model_validate_json, file)}


def _rule_of_run(folder: Path, wanted: Rule) -> Rule:
    """The rule that the values of an existing run are for; a new run's are for the one that is wanted."""
    try:
        return Rule.model_validate(read_config(folder).options["rule"])
    except (InputError, KeyError):
        return wanted


def _settling(rule: Rule, confidence: float | None) -> Settling:
    usual = Settling.of(rule)
    if confidence is None:
        return usual
    return Settling(confidence=confidence, zero_confidence=max(confidence, usual.zero_confidence))


def _print_summary(summary: LabelSummary, folder: Path) -> None:
    shared.print_figures(summary.figures)
    Console(highlight=False).print(
        f"Labels by {summary.rule}: {folder}/labelled.jsonl, labelled.parquet; what is in them: README.md",
        soft_wrap=True,
    )
