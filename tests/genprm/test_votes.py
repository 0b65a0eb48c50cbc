"""Which votes are drawn, which are not, and that none of it depends on what happens when."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genprm import AsyncVerifier, Budget, Sampling, Solution, StopReason, VotePlan
from genprm.aggregate import Aggregate, ChainVotes, combine_chains, combine_votes, first_error_by_majority
from genprm.chain import Chain, WallTimeError
from genprm.errors import ConfigError
from genprm.models.scripted import Rule, ScriptedModel
from genprm.records import ParseStatus, StepVerification, StepVote, Usage, Verification
from genprm.styles import Direct, GenPRM, Judge, ThinkPRM
from genprm.votes import is_sure, steps_in_doubt
from sandbox import Sandbox, SandboxError

score = st.floats(0, 1)


def chain(*scores: float | str | None) -> ChainVotes:
    return ChainVotes(tuple(map(vote, scores)), Usage(completion_tokens=1))


def vote(said: float | str | None) -> StepVote:
    if isinstance(said, str):
        return StepVote(score=None, stop_reason=StopReason(said), parse=ParseStatus.NOT_ASKED)
    parse = ParseStatus.EMPTY if said is None else ParseStatus.OK
    return StepVote(score=said, stop_reason=StopReason.JUDGED, parse=parse)


def first_error(chains: list[ChainVotes], steps: int, aggregate: Aggregate = Aggregate.MEAN) -> int:
    solution = Solution(id="a", problem="p", steps=("s",) * steps)
    return combine_chains(solution, chains, "m", "s", aggregate=aggregate).first_error


@pytest.mark.parametrize("aggregate", Aggregate)
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_with_full_confidence_no_further_vote_changes_the_outcome(aggregate: Aggregate, data: st.DataObject):
    steps = data.draw(st.integers(1, 3))
    draw_chain = st.lists(score, min_size=steps, max_size=steps).map(lambda scores: chain(*scores))
    drawn = data.draw(st.lists(draw_chain, min_size=1, max_size=6))
    more = data.draw(st.lists(draw_chain, max_size=3))
    plan = VotePlan(first=1, most=len(drawn) + 3, confidence=1)
    if not steps_in_doubt(drawn, plan, aggregate):
        assert first_error([*drawn, *more], steps, aggregate) == first_error(drawn, steps, aggregate)


@pytest.mark.parametrize(
    ("chains", "confidence", "doubtful"),
    [
        ([(0.99,), (0.98,)], 0.95, 0),
        ([(0.99,), (0.98,)], 1, 1),
        ([(0.99,), (0.1,)], 0.95, 1),
        ([(0.99,)] * 5, 1, 0),
        ([(0.01, 0.5)] * 2, 0.95, 0),
        ([(None,), (None,)], 0.95, 1),
        ([(0.9,)] * 8, 1, 0),
        ([(0.9, 0.9, 0.9)] * 2, 0.97, 3),
        ([(0.9, 0.2, 0.9), (0.9, 0.9, 0.9), (0.9, 0.9, 0.9)], 0.9, 2),
        ([(0.9, 0.9, 0.9), (0.9, "settled", "settled"), (0.9, "settled", "settled")], 0.9, 3),
        ([(0.1, 0.9, 0.9), (0.1, "settled", "settled"), (0.1, "settled", "settled")], 0.9, 0),
    ],
)
def test_steps_in_doubt(chains: list[tuple[float | str | None, ...]], confidence: float, doubtful: int):
    plan = VotePlan(first=1, most=8, confidence=confidence)
    assert steps_in_doubt([chain(*scores) for scores in chains], plan, Aggregate.MEAN) == doubtful


def test_majority_of_first_errors():
    chains = [chain(1, 0, 1), chain(1, 1, 1), chain(1, 0, 0), chain(1, 1, 1), chain(0.1, None, 1)]
    assert first_error_by_majority(chains) == 1, "of equals, the earlier step"
    assert first_error_by_majority([chain(None), chain(1)]) == -1
    assert first_error_by_majority([chain(None)]) is None


def test_where_no_chain_comes_to_an_answer_there_is_none():
    solution = Solution(id="a", problem="p", steps=("s",) * 3)
    chains = [chain(1, None, 0.1), chain(0.9, 1, None)]
    row = combine_chains(solution, chains, "m", "s", aggregate=Aggregate.MAJORITY)
    assert [step.score for step in row.steps] == [0.95, None, None]
    assert (row.first_error, row.settled, row.unscored) == (-1, False, 2)
    assert all(len(step.votes) == 2 and step.parse is ParseStatus.EMPTY for step in row.steps[1:])


def test_votes_drawn_in_doubt_take_their_time():
    solution = Solution(id="a", problem="p", steps=("s",))
    chains = [ChainVotes((vote(each),), Usage(seconds=seconds)) for each, seconds in ((0.9, 1), (0.2, 3), (0.9, 2))]
    assert combine_chains(solution, chains, "m", "s").usage.seconds == 3
    assert combine_chains(solution, chains, "m", "s", side_by_side=1).usage.seconds == 6
    assert combine_chains(solution, chains, "m", "s", side_by_side=2).usage.seconds == 5


async def test_no_end_at_the_first_error_of_a_majority():
    with pytest.raises(ConfigError, match="needs the mean over votes"):
        AsyncVerifier(ScriptedModel([]), None, aggregate=Aggregate.MAJORITY, stop_at_first_error=True)
    AsyncVerifier(ScriptedModel([]), None, style=ThinkPRM(), stop_at_first_error=True)


def scored(*scores: float | None) -> list[StepVerification]:
    return [combine_votes(index, [vote]) for index, vote in enumerate(chain(*scores).steps)]


def test_sure():
    assert is_sure(scored(0.95, 0.97), -1, 0.9)
    assert not is_sure(scored(0.95, 0.7), -1, 0.9)
    assert is_sure(scored(0.95, 0.05, 0.6), 1, 0.9), "what is behind the error does not count"
    assert not is_sure(scored(0.95, None), -1, 0.9)
    known = combine_votes(0, [StepVote(score=None, stop_reason=StopReason.GIVEN, parse=ParseStatus.NOT_ASKED)])
    assert is_sure([known, *scored(0.95)], -1, 0.9), "what is given does not count"


@pytest.mark.parametrize("wrong", [{"first": 3, "most": 2}, {"first": 0}, {"most": 0}, {"confidence": 0.5}])
def test_wrong_plans_are_refused(wrong: dict[str, float]):
    with pytest.raises(ValueError):
        VotePlan(**wrong)


def scripted(judge: Callable[[str, int], float], seconds: float = 0.0) -> ScriptedModel:
    """A model whose judgement of a step depends on the prompt and on the vote, by its seed."""
    model = ScriptedModel(lambda _: Rule(yes=1.0))

    async def complete(prompt: str, **options):
        seed = options["sampling"].seed
        await asyncio.sleep(seconds * random.random())
        rule = Rule(yes=judge(prompt, seed)) if prompt.endswith("boxed{") else Rule(text="So.</analyze>\n")
        model.prompts.append(prompt)
        return [model._completion(prompt, rule, options["stop"], options["max_tokens"])]

    model.complete = complete
    return model


async def verify(model: ScriptedModel, steps: int, **options) -> Verification:
    options.setdefault("style", Direct())
    async with AsyncVerifier(model, None, **options) as verifier:
        return await verifier.verify("p", [f"Claim {n}." for n in range(steps)])


async def test_agreement_needs_few_votes_and_disagreement_many():
    agreed = await verify(scripted(lambda _, seed: 0.9), 3, votes=VotePlan.adaptive(8))
    assert agreed.votes < 5
    torn = await verify(scripted(lambda _, seed: float(seed % 2)), 3, votes=VotePlan.adaptive(8, confidence=0.999))
    assert 2 < torn.votes <= 8


@pytest.mark.parametrize(("likeliest_first", "drawn"), [(True, [0.0, 0.9, 0.9]), (False, [0.9, 0.9, 0.9])])
async def test_the_first_vote_can_take_the_likeliest_tokens(likeliest_first: bool, drawn: list[float]):
    """What is read at the verdict is its probability, which a temperature would change with some servers."""
    model, written, read = scripted(lambda _, seed: 0.9), [], []
    complete = model.complete

    async def watched(prompt: str, **options):
        (read if options["logprobs"] else written).append(options["sampling"].temperature)
        return await complete(prompt, **options)

    model.complete = watched
    how = {"sampling": Sampling(temperature=0.9), "likeliest_first": likeliest_first, "style": GenPRM(verify=False)}
    await verify(model, 1, votes=VotePlan.fixed(3), **how)
    assert (sorted(written), read) == (drawn, [0.0] * 3)


async def test_only_steps_in_doubt_get_more_votes():
    """The first step is wrong beyond doubt: nobody votes again on those behind it."""
    report = await verify(scripted(lambda prompt, _: 0.01 if "Claim 1." not in prompt else 0.9), 4,
                          votes=VotePlan.adaptive(8, confidence=0.9))  # fmt: skip
    assert report.first_error == 0
    assert report.usage.model_calls == 4 + report.votes - 1
    assert [vote.stop_reason for vote in report.steps[1].votes[1:]] == [StopReason.SETTLED] * (report.votes - 1)
    assert report.unscored == 0


async def test_a_chain_goes_on_where_doubt_comes_back():
    """A first error that further votes overturn: the chains that had stopped at it are taken further."""

    def judge(prompt: str, seed: int) -> float:
        return (0.4 if seed == judge.first else 0.9) if "Claim 1." not in prompt else 0.9

    model = scripted(judge)
    seeds: list[int] = []
    complete = model.complete

    async def remembering(prompt: str, **options):
        seeds.append(options["sampling"].seed)
        judge.first = seeds[0]
        return await complete(prompt, **options)

    model.complete = remembering
    report = await verify(model, 3, votes=VotePlan.adaptive(8))
    assert report.first_error == -1
    assert all(sum(vote.asked for vote in step.votes) >= 2 for step in report.steps)
    assert report.unscored == 0


async def test_a_judge_behind_its_error_has_been_asked():
    """A style that judges a solution as a whole, by the mean: never more chains than there may be."""
    async with AsyncVerifier(ScriptedModel([Rule(text="\\boxed{0}")]), None, style=Judge(),
                             aggregate=Aggregate.MEAN) as verifier:  # fmt: skip
        report = await verifier.verify("p", ["a", "b"], votes=VotePlan.adaptive(4, confidence=1))
    assert report.votes <= 4


async def test_votes_that_cannot_matter_are_not_drawn():
    report = await verify(scripted(lambda *_: 1.0), 1, votes=VotePlan.adaptive(8, confidence=1))
    assert report.votes == 4, "with four of eight at 1, the mean cannot fall under 0.5"


async def test_stop_at_first_error():
    model = scripted(lambda prompt, _: 0.2 if "Claim 1." in prompt else 0.9)
    report = await verify(model, 5, votes=VotePlan.fixed(4), stop_at_first_error=True)
    assert [step.score for step in report.steps] == pytest.approx([0.9, 0.2, None, None, None])
    assert report.usage.model_calls == 8
    assert (report.first_error, report.unscored, report.score) == (1, 0, pytest.approx(0.2))
    assert [step.stop_reason for step in report.steps[2:]] == [StopReason.AFTER_ERROR] * 3


async def test_one_vote_that_errs_does_not_stop_the_others():
    model = scripted(lambda prompt, seed: 0.4 if "Claim 1." in prompt and seed % 3 == 0 else 0.9)
    report = await verify(model, 4, votes=VotePlan.fixed(6), stop_at_first_error=True)
    assert report.first_error == -1
    assert report.usage.model_calls == 24


@pytest.mark.parametrize("stop", [True, False])
async def test_timing_changes_nothing(stop: bool):
    def judge(prompt: str, seed: int) -> float:
        return random.Random(f"{len(prompt)}/{seed}").choice([0.2, 0.6, 0.9])

    async def rows(in_flight: int, seconds: float) -> list[str]:
        plan = VotePlan.adaptive(6)
        model = scripted(judge, seconds)
        options = {"style": GenPRM(verify=False), "votes": plan, "stop_at_first_error": stop, "in_flight": in_flight}
        async with AsyncVerifier(model, None, **options) as verifier:
            solutions = [Solution(id=str(n), problem="p", steps=("a", "b", "c")) for n in range(12)]
            done = dict([entry async for entry in verifier.verify_many(solutions)])
        usage = Usage()
        return [done[n].model_copy(update={"usage": usage}).model_dump_json() for n in range(12)]

    assert await rows(1, 0) == await rows(16, 0.01)


async def test_more_votes_than_places_do_not_lock_each_other_out():
    model = scripted(lambda *_: 0.9, seconds=0.01)
    options = {"votes": VotePlan.fixed(8), "stop_at_first_error": True, "in_flight": 3}
    report = await asyncio.wait_for(verify(model, 5, **options), 20)
    assert report.votes == 8


@pytest.mark.parametrize("stop", [True, False])
async def test_chains_that_wait_do_not_keep_each_other_from_kernels(stop: bool):
    """Six solutions of up to four chains, and four kernels."""
    rules = [
        Rule(when=r"boxed\{$", choice={"Yes": 0.6, "No": 0.4}),
        Rule(when=r"python\n$", text="print(1)\n```\n"),
        Rule(text="So.</analyze>\n</verify>\n<output>\n"),
    ]
    options = {"votes": VotePlan.adaptive(4, confidence=1), "stop_at_first_error": stop}
    async with AsyncVerifier(ScriptedModel(rules), Sandbox("local", sessions=4), **options) as verifier:
        solutions = [Solution(id=str(n), problem="p", steps=("a", "b")) for n in range(6)]
        rows = [row async for _, row in verifier.verify_many(solutions)]
        with pytest.raises(ConfigError, match="5 votes need as many kernels: the sandbox has 4"):
            await verifier.verify("p", ["s"], votes=VotePlan.adaptive(5))
    assert all(isinstance(row, Verification) and row.votes > 2 and not row.unscored for row in rows)


@pytest.mark.parametrize("aggregate", [None, *Aggregate])
async def test_escalation(aggregate: Aggregate | None):
    def judge(prompt: str, _: int) -> float:
        hard = "Claim 1." in prompt
        return 0.3 if "So." in prompt else (0.6 if hard else 0.99)

    options = {"style": GenPRM(verify=False), "cheap": Direct(), "sure": 0.9, "aggregate": aggregate}
    easy = await verify(scripted(judge), 1, **options)
    assert (easy.style, easy.usage.model_calls) == ("direct", 1)
    hard = await verify(scripted(judge), 2, **options)
    assert (hard.style, hard.first_error) == ("direct>genprm", 0)
    assert hard.usage.model_calls == 2 + 4


async def test_a_word_on_the_whole_that_is_unsure_is_not_taken():
    rules = [
        Rule(when=r"Is the solution correct\?$", yes=0.5),
        Rule(when=r"step by step:$", text="\nStep 1: Fine. \\boxed{correct}"),
        Rule(yes=0.9),
    ]
    async with AsyncVerifier(ScriptedModel(rules), None, style=Direct(), cheap=ThinkPRM()) as verifier:
        report = await verifier.verify("p", ["s"])
    assert report.style == "thinkprm>direct"


async def test_cheap_chains_that_wait_do_not_keep_others_from_kernels():
    rules = [
        Rule(when=r"boxed\{$", choice={"Yes": 0.6, "No": 0.4}),
        Rule(when=r"python\n$", text="print(1)\n```\n"),
        Rule(text="So.</analyze>\n</verify>\n<output>\n"),
    ]
    options = {"style": Direct(), "cheap": GenPRM(), "stop_at_first_error": True, "in_flight": 2}
    async with AsyncVerifier(ScriptedModel(rules), Sandbox("local", sessions=2), **options) as verifier:
        solutions = [Solution(id=str(n), problem="p", steps=("a", "b")) for n in range(6)]
        async with asyncio.timeout(60):
            rows = [row async for _, row in verifier.verify_many(solutions)]
    assert {row.style for row in rows} == {"genprm>direct"}


async def test_nobody_goes_beyond_the_first_error_where_doubt_comes_back():
    """The first chain's first error is lifted by the second: both go on to the next one, and no further."""
    seconds: list[str] = []

    def judge(prompt: str, _: int) -> float:
        claims = prompt.count("Claim ")
        if claims == 2:
            seconds.append(prompt)
            return 0.45 if len(seconds) == 1 else 0.9
        return 0.9 if claims == 1 else 0.05

    model = scripted(judge)
    report = await verify(model, 10, votes=VotePlan.adaptive(8), stop_at_first_error=True)
    assert report.first_error == 2
    assert max(prompt.count("Claim ") for prompt in model.prompts) == 3


async def test_what_a_lost_attempt_has_cost_is_counted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("genprm.open_chain.RETRY_AFTER", (0.0,))
    rules = [
        Rule(when=r"boxed\{$", yes=0.9),
        Rule(when=r"python\n$", text="print(1)\n```\n"),
        Rule(text="So.</analyze>\n</verify>\n<output>\n"),
    ]
    model, ran = ScriptedModel(rules), []
    run = Chain.run

    async def failing(chain: Chain, code: str):
        ran.append(code)
        if len(ran) == 1:
            raise SandboxError("gone")
        return await run(chain, code)

    monkeypatch.setattr(Chain, "run", failing)
    async with AsyncVerifier(model, Sandbox("local")) as verifier:
        report = await verifier.verify("p", ["s"])
    assert report.usage.model_calls == len(model.prompts)


async def test_adaptive_judges():
    async with AsyncVerifier(ScriptedModel([Rule(text="\\boxed{1}")]), None, style=Judge()) as verifier:
        report = await verifier.verify("p", ["a", "b"], votes=VotePlan.adaptive(8))
    assert report.votes < 5
    assert report.first_error == 1


async def test_the_budget_of_a_chain_forces_what_is_left():
    model = scripted(lambda *_: 0.9)
    budget = Budget(chain_tokens=4)
    report = await verify(model, 4, style=GenPRM(verify=False), budget=budget)
    assert [step.stop_reason for step in report.steps] == [StopReason.JUDGED] * 2 + [StopReason.TOKEN_BUDGET] * 2
    assert report.unscored == 0


async def test_waiting_for_the_others_is_not_ones_own_time():
    paused = Chain(ScriptedModel([Rule(text="x")]), None, Budget(wall_seconds=0.3), Sampling(), "key")
    paused.pause()
    await asyncio.sleep(0.4)
    paused.resume()
    assert (await paused.write("p", (), 1)).text == "x"
    assert paused.usage.seconds < 0.3
    await asyncio.sleep(0.4)
    with pytest.raises(WallTimeError):
        await paused.write("p", (), 1)
