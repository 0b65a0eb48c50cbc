"""The application: routes, and what their failures look like."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from genprm.errors import ConfigError, ModelUnavailableError, VerificationError
from genprm.integrations.openrlhf import as_solutions
from genprm.models.base import ModelBackend
from genprm.records import Solution, Verification
from genprm.serve.admission import Admission
from genprm.serve.api import (
    ErrorResponse,
    Fault,
    Health,
    RewardRequest,
    RewardResponse,
    Score,
    ScoreRequest,
    ScoreResponse,
    VerifyRequest,
    Wanted,
)
from genprm.serve.errors import (
    BusyError,
    DeadlineError,
    GoneError,
    OwnDeadlineError,
    TooManyError,
    UnscoredError,
)
from genprm.serve.events import EventResponse, Stream, as_event
from genprm.serve.metrics import Metrics
from genprm.serve.middleware import CLIENT_GONE, ENDING, INTERNAL, STREAMED, RequestMiddleware, log, refusal
from genprm.tasks import gather_all
from genprm.verifier import AsyncVerifier
from genprm.viewer.pages import add_static, live_router
from sandbox import SandboxUnavailableError

T = TypeVar("T")
Unavailable = ModelUnavailableError | SandboxUnavailableError
UNAVAILABLE = (ModelUnavailableError, SandboxUnavailableError)
UNWELL = 30.0
"""Seconds for which ``/health`` tells of a model or a sandbox that was gone."""


class ServeSettings(BaseModel):
    """How a server behaves, whatever it verifies with."""

    model_config = ConfigDict(frozen=True)

    max_waiting: int = Field(default=256, ge=0)
    """Rows that may wait; more are answered with 429."""
    deadline_seconds: float = Field(default=600.0, gt=0)
    """Of a request, at most."""
    max_body: int = Field(default=4 * 2**20, ge=1024)
    """Bytes of a request's body."""
    keys: frozenset[str] = frozenset()
    """Hashes of API keys; empty: none is asked for."""
    hosts: tuple[str, ...] = ()
    """Names that it may be asked by; empty: any."""
    unscored_reward: float | None = None
    """What ``/get_reward`` says of a response that is unscored. None: the request fails."""


_STATUS: dict[type[Exception], tuple[int, str]] = {
    BusyError: (429, "busy"),
    TooManyError: (413, "too_many_rows"),
    OwnDeadlineError: (408, "deadline"),
    DeadlineError: (504, "deadline"),
    GoneError: (CLIENT_GONE, "client_gone"),
    UnscoredError: (502, "unscored"),
    VerificationError: (502, "verification_failed"),
    ConfigError: (422, "invalid"),
    ModelUnavailableError: (503, "model_unavailable"),
    SandboxUnavailableError: (503, "sandbox_unavailable"),
}
_BLANK = Score(id="", score=None, first_error=None, steps=None, error="the response is blank")
_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": description}
    for status, description in (
        (401, "No key, or a wrong one"), (404, "Another model is served"),
        (408, "The request's own deadline has passed"), (413, "Too large, or too many rows"),
        (422, "Not as expected; the field is named"), (429, "No room: come again after Retry-After seconds"),
        (502, "It was tried, and failed"), (503, "Model or sandbox are gone"), (504, "The server's own has passed"),
    )
}  # fmt: skip
ROUTES = ("/", "/v1/verify", "/v1/score", "/get_reward", "/health", "/metrics")


def create_app(verifier: AsyncVerifier, settings: ServeSettings) -> FastAPI:
    """An application that verifies with one verifier, which whoever makes it has opened and closes."""
    service = Service(verifier, settings)
    app = FastAPI(
        title="genprm",
        description="Step-by-step verification of solutions, with code that runs.",
        version="1",
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(
        RequestMiddleware,
        max_body=settings.max_body,
        keys=settings.keys,
        hosts=settings.hosts,
        routes=ROUTES,
        counted=service.counted,
    )

    @app.post("/v1/verify", response_model=Verification, responses=_RESPONSES)
    async def verify(request: Request, row: VerifyRequest) -> Response:
        """Verify one solution: a row in, a row out; with ``stream``, everything as it is written."""
        return await service.verify(request, row)

    @app.post("/v1/score", responses=_RESPONSES)
    async def score(request: Request, batch: ScoreRequest) -> ScoreResponse:
        """The scores of many solutions. One that fails does not touch the others."""
        return await service.score(request, batch)

    @app.post("/get_reward", responses=_RESPONSES)
    async def get_reward(request: Request, asked: RewardRequest) -> RewardResponse:
        """OpenRLHF's remote reward: the least step score of each response, whose steps end at empty lines."""
        return await service.reward(request, asked)

    @app.get("/health", responses={503: {"model": Health}})
    async def health(response: Response) -> Health:
        """Whether requests are answered."""
        found = service.health()
        response.status_code = 200 if found.status == "ok" else 503
        return found

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    add_static(app)
    app.include_router(live_router(verifier.model.name, verifier.style.name))
    for kind in _STATUS:
        app.add_exception_handler(kind, _failed)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    return app


class Service:
    """What the routes do."""

    def __init__(self, verifier: AsyncVerifier, settings: ServeSettings) -> None:
        self._verifier = verifier
        self._settings = settings
        self._admission = Admission(verifier.rows_at_once, settings.max_waiting, verifier.votes.first)
        self._gone: tuple[float, type[Unavailable], str] | None = None
        """When model or sandbox were last found to be gone, and how."""
        self.metrics = Metrics(self._admission, verifier.sandbox)

    @property
    def _model(self) -> ModelBackend:
        return self._verifier.model

    def health(self) -> Health:
        """How it is. Some time after a failure it is taken to be well: else nobody would ever ask it again."""
        gone = self._gone if self._gone and time.monotonic() - self._gone[0] < UNWELL else None
        # Not all that was said: it may quote a model server, and no key is asked for here.
        reason = gone and _fault(gone[1](gone[2]))[1].type
        return Health(
            status="unavailable" if reason else "ok", model=self._model.name, style=self._verifier.style.name,
            reason=reason,
        )  # fmt: skip

    def counted(self, path: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self.metrics.requests.labels(path, str(status)).inc()
        if status == 200:  # who is turned away at once would make an overload look fast
            self.metrics.seconds.labels(path).observe(seconds)

    async def verify(self, request: Request, row: VerifyRequest) -> Response:
        """See the route."""
        self._check(row)
        if not row.stream:
            with self._admission.admit(1):
                found = await _while_connected(request, self._one(row, row))
            return Response(found.model_dump_json(), media_type="application/json")
        place = ExitStack()
        place.enter_context(self._admission.admit(1))
        stream = Stream()

        async def work() -> None:
            with place:
                try:
                    found = await self._one(row, row, stream)
                except asyncio.CancelledError:
                    request.state.notes.setdefault(STREAMED, CLIENT_GONE)
                    raise
                except Exception as error:  # noqa: BLE001 - the status is sent already: it is told in the stream
                    status, fault = _fault(error)
                    request.state.notes[STREAMED] = status
                    log("failed", id=request.state.request_id, status=status, error=_described(error))
                    stream.put("error", ErrorResponse(error=fault, request_id=request.state.request_id))
                else:
                    stream.put("result", found)

        ending = as_event("error", ErrorResponse(error=ENDING, request_id=request.state.request_id))
        return EventResponse(stream.read(work), self._seconds(row), ending, place.close)

    async def score(self, request: Request, batch: ScoreRequest) -> ScoreResponse:
        """See the route."""
        self._check(batch)
        request.state.notes["rows"] = len(batch.rows)
        with self._admission.admit(len(batch.rows)) as give_back:
            results = await _while_connected(request, self._scores(batch.rows, batch, give_back))
        return ScoreResponse(model=self._model.name, style=self._verifier.style.name, results=results)

    async def reward(self, request: Request, asked: RewardRequest) -> RewardResponse:
        """See the route."""
        solutions = as_solutions(asked.query, asked.prompts)
        rows = [solution for solution in solutions if solution]
        request.state.notes["rows"] = len(rows)
        with self._admission.admit(len(rows)) as give_back:
            scored = iter(await _while_connected(request, self._scores(rows, Wanted(), give_back)))
        results = [next(scored) if solution else _BLANK for solution in solutions]
        unscored = [place for place, result in enumerate(results) if result.score is None]
        otherwise = self._settings.unscored_reward
        if unscored and otherwise is None:
            why = results[unscored[0]].error or "steps without a verdict"
            raise UnscoredError(
                f"{len(unscored)} of {len(solutions)} responses are unscored, from {unscored[0]} on: {why}"
            )
        rewards = tuple(each.score if each.score is not None else otherwise or 0.0 for each in results)
        marks = tuple(float(result.score is None) for result in results)
        return RewardResponse(rewards=rewards, scores=rewards, extra_logs={"unscored": marks})

    def _check(self, wanted: Wanted) -> None:
        if wanted.model is not None and wanted.model != self._model.name:
            raise HTTPException(404, f"the model {wanted.model!r} is not served here, but {self._model.name!r}")

    def _seconds(self, wanted: Wanted) -> float:
        return min(wanted.deadline_seconds or self._settings.deadline_seconds, self._settings.deadline_seconds)

    async def _in_time(self, wanted: Wanted, work: Awaitable[T]) -> T:
        seconds = self._seconds(wanted)
        try:
            async with asyncio.timeout(seconds) as limit:
                return await work
        except TimeoutError:
            if limit.expired():
                if self._model.away:
                    raise ModelUnavailableError(f"{self._model.name}: no answer within {seconds:g} s") from None
                kind = OwnDeadlineError if seconds == wanted.deadline_seconds else DeadlineError
                raise kind(f"not done in {seconds:g} s") from None
            raise

    async def _one(self, wanted: Wanted, solution: Solution, watch: Stream | None = None) -> Verification:
        """Verify a row that has a place, in time, and note how it ends."""

        asked, votes = time.monotonic(), wanted.plan(self._verifier.votes)

        async def work() -> Verification:
            async with self._admission.work(votes.first):
                if self._gone and self._found_gone_since(asked):  # while this row waited: others have had the patience
                    raise self._gone[1](self._gone[2])
                return await self._verifier.verify_solution(solution, votes=votes, watch=watch)

        try:
            found = await self._in_time(wanted, work())
        except ConfigError:
            raise  # nothing was tried
        except Exception as error:
            self.metrics.failed.inc()
            if isinstance(error, UNAVAILABLE) and not self._found_gone_since(asked):
                self._gone = time.monotonic(), type(error), str(error)
            raise
        self._gone = None
        self.metrics.count(found)
        return found

    def _found_gone_since(self, moment: float) -> bool:
        return self._gone is not None and self._gone[0] > moment

    async def _scores(
        self, rows: Sequence[Solution], wanted: Wanted, give_back: Callable[[], None]
    ) -> tuple[Score, ...]:
        """The rows' scores. Where model or sandbox were gone for all of them, that is raised."""
        gone: list[Unavailable] = []

        async def one(row: Solution) -> Score:
            try:
                found = await self._one(wanted, row)
            except UNAVAILABLE as error:
                gone.append(error)
                return Score(id=row.id, score=None, first_error=None, steps=None, error=str(error))
            except (VerificationError, DeadlineError) as error:
                return Score(id=row.id, score=None, first_error=None, steps=None, error=str(error))
            except ConfigError:
                raise
            except Exception as error:  # noqa: BLE001 - on what one model wrote: the others are not to be lost for it
                log("failed", id=row.id, error=_described(error))
                return Score(id=row.id, score=None, first_error=None, steps=None, error=INTERNAL.message)
            finally:
                give_back()
            return Score(
                id=row.id, score=found.score, first_error=found.first_error if found.settled else None,
                steps=tuple(step.score for step in found.steps),
            )  # fmt: skip

        scores = tuple(await gather_all(one(row) for row in rows))
        if gone and len(gone) == len(rows):
            raise gone[0]
        return scores


async def _while_connected(request: Request, work: Awaitable[T]) -> T:
    """Do the work, unless the client leaves first: then model and kernels stop.

    Raises:
        GoneError: it has left.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise GoneError("the client has left")
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _fault(error: Exception) -> tuple[int, Fault]:
    for kind, (status, name) in _STATUS.items():
        if isinstance(error, kind):
            return status, Fault(type=name, message=str(error))
    return 500, INTERNAL


def _failed(request: Request, error: Exception) -> Response:
    status, fault = _fault(error)
    headers = {"retry-after": str(error.retry_after)} if isinstance(error, BusyError) else None
    request.state.notes["error"] = _described(error)
    return refusal(status, fault, request.state.request_id, headers)


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["loc"] == ("body",) and request.headers.get("content-type", "").split(";")[0] != "application/json":
        fault = Fault(type="invalid", message="expected the header Content-Type: application/json")
        return refusal(422, fault, request.state.request_id)
    if first["type"] == "json_invalid":
        fault = Fault(
            type="invalid", message=f"not valid JSON, at character {first['loc'][-1]}: {first['ctx']['error']}"
        )
        return refusal(422, fault, request.state.request_id)
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"][1:])
    fault = Fault(type="invalid", message=str(first["msg"]), field=field.removeprefix(".") or None)
    return refusal(422, fault, request.state.request_id)


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 400:
        utf8 = isinstance(error.__cause__, UnicodeDecodeError)
        why = "not UTF-8 text" if utf8 else "nested too deep, or a number is too long"
        return refusal(422, Fault(type="invalid", message=f"not valid JSON: {why}"), request.state.request_id)
    fault = Fault(type="not_found" if error.status_code == 404 else "refused", message=str(error.detail))
    return refusal(error.status_code, fault, request.state.request_id, dict(error.headers or {}))
