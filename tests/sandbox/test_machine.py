"""Sessions driven at random, against a model of what each must return: run, interrupt, time out, fork, die, restart."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sandbox import Limits, RunStatus, Sandbox, Session, SessionClosedError, SessionForkError
from tests.conftest import kinds

NAMES = st.sampled_from("abc")
VALUES = st.one_of(st.integers(-(10**30), 10**30), st.text(max_size=20), st.lists(st.integers(0, 9), max_size=3))
OPEN_AT_MOST = 5


class Loop:
    """An event loop in a thread of its own, for a machine whose steps are plain calls."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)


@dataclass(eq=False)
class Modelled:
    """A session, and what we know of it."""

    session: Session
    variables: dict[str, Any] = field(default_factory=dict)
    blocked: bool = False
    """It holds something that cannot be forked."""


class Machine(RuleBasedStateMachine):
    loop: Loop
    sandbox: Sandbox

    @initialize()
    def begin(self) -> None:
        self.open: list[Modelled] = []
        self.dead: list[Modelled] = []
        self.restart()

    def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run(work)

    def pick(self, data: st.DataObject) -> Modelled:
        return data.draw(st.sampled_from(self.open), label="session")

    def lose(self, one: Modelled) -> None:
        self.open.remove(one)
        self.dead.append(one)

    @precondition(lambda self: len(self.open) < OPEN_AT_MOST)
    @rule()
    def restart(self) -> None:
        """A fresh kernel knows nothing of any other."""
        one = Modelled(self.call(self.sandbox.session()))
        seen = self.call(one.session.run("[n for n in globals() if len(n) == 1 and n != '_']"))
        assert seen.result == "[]"
        self.open.append(one)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), name=NAMES, value=VALUES)
    def assign(self, data: st.DataObject, name: str, value: Any) -> None:
        one = self.pick(data)
        assert self.call(one.session.run(f"{name} = {value!r}")).status is RunStatus.OK
        one.variables[name] = value

    @precondition(lambda self: self.open)
    @rule(data=st.data(), name=NAMES)
    def mutate(self, data: st.DataObject, name: str) -> None:
        one = self.pick(data)
        result = self.call(one.session.run(f"print('before')\n{name}.append(1)\nprint('after')"))
        if isinstance(one.variables.get(name), list):
            one.variables[name].append(1)
            assert (result.status, result.stdout) == (RunStatus.OK, "before\nafter\n")
        else:
            expected = "AttributeError" if name in one.variables else "NameError"
            assert (result.error.name, result.stdout) == (expected, "before\n")

    @precondition(lambda self: self.open)
    @rule(data=st.data(), name=NAMES, swallow=st.booleans())
    def time_out(self, data: st.DataObject, name: str, swallow: bool) -> None:
        one = self.pick(data)
        loop = "import signal\nsignal.signal(2, signal.SIG_IGN)\n" * swallow + "while True: pass"
        result = self.call(one.session.run(f"{name} = 'spun'\n{loop}", 1.0 if swallow else 0.15))
        assert (result.status, result.state_lost) == (RunStatus.TIMEOUT, swallow)
        one.variables[name] = "spun"
        if swallow:
            self.lose(one)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), name=NAMES, wait=st.sampled_from((0, 0.1)))
    def interrupt(self, data: st.DataObject, name: str, wait: float) -> None:
        one = self.pick(data)

        async def work() -> Any:
            running = asyncio.create_task(one.session.run(f"{name} = 1\nprint('on')\nwhile True: pass", 20))
            await asyncio.sleep(wait)
            await one.session.interrupt()
            return await running

        result = self.call(work())
        assert (result.status, result.error.name) == (RunStatus.ERROR, "KeyboardInterrupt")
        if result.stdout != "on\n":  # it had not come so far
            assert result.stdout in ("", "on")
            self.call(one.session.run(f"{name} = 1"))
        one.variables[name] = 1

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def interrupt_nothing(self, data: st.DataObject) -> None:
        self.call(self.pick(data).session.interrupt())

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def block(self, data: st.DataObject) -> None:
        one = self.pick(data)
        self.call(one.session.run("held = open('held', 'w')"))
        one.blocked = True

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def unblock(self, data: st.DataObject) -> None:
        one = self.pick(data)
        self.call(one.session.run("if 'held' in globals(): held.close()"))
        one.blocked = False

    @precondition(lambda self: 0 < len(self.open) < OPEN_AT_MOST)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        one = self.pick(data)
        if one.blocked:
            with pytest.raises(SessionForkError, match="open file"):
                self.call(one.session.fork())
            return
        copied = {name: list(value) if isinstance(value, list) else value for name, value in one.variables.items()}
        self.open.append(Modelled(self.call(one.session.fork()), copied))

    @precondition(lambda self: self.open)
    @rule(data=st.data(), how=st.sampled_from(["os._exit(4)", "os.kill(os.getpid(), 9)", "os.abort()"]))
    def die(self, data: st.DataObject, how: str) -> None:
        one = self.pick(data)
        result = self.call(one.session.run(f"import os\nprint('last words', flush=True)\n{how}"))
        assert (result.status, result.state_lost) == (RunStatus.DIED, True)
        self.lose(one)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        one = self.pick(data)
        self.call(one.session.close())
        self.lose(one)

    @precondition(lambda self: self.dead)
    @rule(data=st.data())
    def use_the_dead(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.dead), label="dead session")
        for use in (lambda: one.session.run("1"), one.session.fork, one.session.interrupt):
            with pytest.raises(SessionClosedError):
                self.call(use())

    @invariant()
    def every_session_has_its_own_state(self) -> None:
        for one in getattr(self, "open", []):
            result = self.call(one.session.run("{n: globals()[n] for n in 'abc' if n in globals()}"))
            assert result.result == repr({name: one.variables[name] for name in "abc" if name in one.variables})

    def teardown(self) -> None:
        for one in (*getattr(self, "open", []), *getattr(self, "dead", [])):
            self.call(one.session.close())


@pytest.mark.parametrize("kind", kinds("local", "docker"), indirect=True)
@pytest.mark.timeout(600)
def test_sessions_do_what_the_model_says(kind: str, make_sandbox: Callable[..., Sandbox]):
    loop = Loop()

    async def make() -> Sandbox:
        box = make_sandbox(Limits(memory_mib=256, grace=0.3), sessions=64)
        await box.start()
        return box

    box = loop.run(make())
    try:
        driven = type("Driven", (Machine,), {"loop": loop, "sandbox": box})
        run_state_machine_as_test(
            driven,
            settings=settings(
                max_examples=12, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )
    finally:
        loop.run(box.close())
        loop.stop()
