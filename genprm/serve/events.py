"""A verification as server-sent events, while it is made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import anyio
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from genprm.records import Segment, StepVote
from genprm.serve.middleware import STREAMED

HEARTBEAT = 15.0
"""Seconds of silence after which a comment is sent, so that proxies keep the connection."""
SLOW = 60.0
"""Seconds beyond the request's deadline that a client may take to read."""


class Begun(BaseModel):
    """``begun``: a chain begins; begun again, what this vote showed before is void."""

    vote: int
    style: str


class Written(BaseModel):
    """``segment``: a part of a step's rationale."""

    vote: int
    step: int
    segment: Segment


class Judged(BaseModel):
    """``step``: a vote on a step; its segments are those that came before, or all of them here."""

    vote: int
    step: int
    said: StepVote


class Stream:
    """Watches one verification, and is read as events."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    def begun(self, vote: int, style: str) -> None:
        self.put("begun", Begun(vote=vote, style=style))

    def written(self, vote: int, step: int, segment: Segment) -> None:
        self.put("segment", Written(vote=vote, step=step, segment=segment))

    def judged(self, vote: int, step: int, said: StepVote) -> None:
        self.put("step", Judged(vote=vote, step=step, said=said))

    def put(self, event: str, data: BaseModel) -> None:
        """Send an event."""
        self._queue.put_nowait(as_event(event, data))

    async def read(self, work: Callable[[], Awaitable[None]]) -> AsyncGenerator[bytes, None]:
        """The events of a verification, which ends with its reader."""

        async def run() -> None:
            try:
                await work()
            finally:
                self._queue.put_nowait(None)

        task = asyncio.create_task(run())
        try:
            while True:
                try:
                    event = await asyncio.wait_for(self._queue.get(), HEARTBEAT)
                except TimeoutError:
                    event = b": still at work\n\n"
                if event is None:
                    await task
                    return
                yield event
        finally:
            task.cancel()
            # A client that leaves ends a scope of anyio's, which cancels at every await: also where it cleans up.
            with anyio.CancelScope(shield=True):
                await asyncio.gather(task, return_exceptions=True)


def as_event(name: str, data: BaseModel) -> bytes:
    """A server-sent event."""
    return f"event: {name}\ndata: {data.model_dump_json()}\n\n".encode()


class EventResponse(StreamingResponse):
    """Server-sent events, to a client that may be slow, but not for ever.

    Args:
        events: what to send.
        seconds: the request's deadline.
        ending: the last event, where the server ends before the verification.
        closed: called at the end, also where nothing could be sent at all.
    """

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncGenerator[bytes, None], seconds: float, ending: bytes, closed: Callable[[], None]
    ) -> None:
        super().__init__(events, headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        self._events = events
        self._seconds = seconds
        self._ending = ending
        self._closed = closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        try:
            async with asyncio.timeout(self._seconds + SLOW):
                await super().__call__(scope, receive, send)
        except TimeoutError:
            pass  # it has had its time: the connection ends here
        except asyncio.CancelledError:
            scope["state"]["notes"][STREAMED] = 503
            await send({"type": "http.response.body", "body": self._ending, "more_body": False})
        finally:
            await self._events.aclose()
            self._closed()
