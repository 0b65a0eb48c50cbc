"""The HTTP server: what it answers, what it refuses, and what it stops."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel, ValidationError

from genprm.errors import ModelError, ModelUnavailableError
from genprm.records import Verification
from genprm.serve.admission import Admission
from genprm.serve.api import MAX_ROWS, RewardRequest, ScoreRequest, VerifyRequest
from genprm.serve.keys import new_key
from genprm.votes import VotePlan
from tests.serve.conftest import Serve

A_TENTH = pytest.approx(0.1)
ROW = {"id": "a", "problem": "P", "steps": ["one", "two"]}


def events(text: str) -> list[tuple[str, Any]]:
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


def without_time(row: dict[str, Any]) -> Any:
    return json.loads(json.dumps(row), object_hook=lambda each: {k: v for k, v in each.items() if k not in TIMES})


TIMES = ("seconds", "duration")


# What it answers


def test_how_many_votes_a_request_gets():
    few = VotePlan.adaptive(4)
    two = VotePlan.fixed(2)
    for votes, served, expected in (
        (None, few, few), ("auto", few, few), ("auto", two, VotePlan.adaptive()), (2, few, two)
    ):  # fmt: skip
        assert VerifyRequest.model_validate({**ROW, "votes": votes}).plan(served) == expected


async def test_a_row_in_and_a_row_out(serve: Serve):
    async with serve() as served:
        answer = await served.client.post("/v1/verify", json={**ROW, "label": 1, "votes": 2, "unknown": "ignored"})
        assert answer.status_code == 200
        found = Verification.model_validate_json(answer.content)
        assert (found.first_error, found.label, found.votes, found.unscored) == (-1, 1, 2, 0)
        assert [step.score for step in found.steps] == [0.9, 0.9]
        assert len(answer.headers["x-request-id"]) == 32
        named = await served.client.get("/health", headers={"x-request-id": "mine-1"})
        assert named.headers["x-request-id"] == "mine-1"
        assert named.json() == {"status": "ok", "model": "scripted", "style": "genprm", "reason": None}


async def test_everything_as_it_is_written(serve: Serve):
    async with serve() as served:
        whole = (await served.client.post("/v1/verify", json=ROW)).json()
        answer = await served.client.post("/v1/verify", json={**ROW, "stream": True})
        assert answer.headers["content-type"].startswith("text/event-stream")
        found = events(answer.text)
    names = [name for name, _ in found]
    assert names[0] == "begun"
    assert names[-1] == "result"
    assert without_time(found[-1][1]) == without_time(whole)
    for step in whole["steps"]:
        shown = [data["segment"] for name, data in found if name == "segment" and data["step"] == step["index"]]
        assert without_time({"": shown}) == without_time({"": step["segments"]})
    assert [data["said"]["score"] for name, data in found if name == "step"] == [0.9, 0.9]


async def test_a_segment_comes_before_the_verification_is_over(serve: Serve):
    async with serve() as served:
        row = {**ROW, "steps": ["one", "slow model"], "stream": True}
        async with served.client.stream("POST", "/v1/verify", json=row) as answer:
            async with asyncio.timeout(10):
                async for line in answer.aiter_lines():
                    if line.startswith("event: step"):
                        break
            assert await served.figure("genprm_rows_in_flight") == 1
        await served.until("genprm_rows_in_flight", 0)


async def test_scores_of_a_batch(serve: Serve):
    async with serve() as served:
        served.model.fails = ModelError("no")
        rows = [
            {**ROW, "id": "good"},
            {**ROW, "id": "bad", "steps": ["one", "wrong"]},
            {**ROW, "id": "lost", "problem": "failing"},
            {**ROW, "id": "open", "steps": ["no verdict"]},
        ]
        answer = await served.client.post("/v1/score", json={"rows": rows})
        good, bad, lost, unscored = answer.json()["results"]
        assert (good["score"], good["first_error"], good["steps"]) == (0.9, -1, [0.9, 0.9])
        assert (bad["score"], bad["first_error"], bad["steps"]) == (A_TENTH, 1, [0.9, A_TENTH])
        assert (lost["score"], lost["steps"], lost["error"]) == (None, None, "ModelError: no")
        assert (unscored["score"], unscored["first_error"], unscored["steps"]) == (None, None, [None])
        assert await served.figure("genprm_failed_rows_total") == 1
        assert await served.figure('genprm_steps_total{verdict="unscored"}') == 1


async def test_a_row_that_meets_a_gone_model_does_not_touch_the_others(serve: Serve):
    async with serve() as served:
        served.model.fails = ModelUnavailableError("no")
        lost = {**ROW, "problem": "failing"}
        answer = await served.client.post("/v1/score", json={"rows": [ROW, lost]})
        assert [(each["score"], each["error"]) for each in answer.json()["results"]] == [(0.9, None), (None, "no")]
        answer = await served.client.post("/v1/score", json={"rows": [lost, lost]})
        assert (answer.status_code, answer.json()["error"]["message"]) == (503, "no")


async def test_rows_that_wait_while_the_model_is_found_gone_are_not_tried(serve: Serve):
    async with serve(max_waiting=9) as served:
        served.model.fails = ModelUnavailableError("no")
        rows = [{**ROW, "problem": "failing"}] * 13
        answer = await served.client.post("/v1/score", json={"rows": rows})
        assert answer.status_code == 503
        assert served.model.refused == 4
        assert (await served.client.post("/v1/verify", json=ROW)).status_code == 200, "later it is asked again"


async def test_a_row_of_a_batch_that_is_done_makes_room(serve: Serve):
    async with serve(max_waiting=3) as served:
        rows = [ROW] * 6 + [{**ROW, "steps": ["slow code"]}]
        batch = asyncio.create_task(served.client.post("/v1/score", json={"rows": rows, "deadline_seconds": 5}))
        await served.until('genprm_steps_total{verdict="correct"}', 12)
        assert await served.figure("genprm_rows_waiting") == 0
        assert (await served.client.post("/v1/score", json={"rows": [ROW] * 6})).status_code == 200
        assert [each["score"] for each in (await batch).json()["results"]] == [0.9] * 6 + [None]


async def test_a_row_with_many_votes_takes_the_room_of_several():
    places = Admission(at_work=2, waiting=0, votes=2)
    begun: list[int] = []

    async def row(votes: int) -> None:
        async with places.work(votes):
            begun.append(votes)
            await asyncio.sleep(3600)

    async def started(*votes: int) -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(row(each)) for each in votes]
        await asyncio.sleep(0.01)
        return tasks

    async def ended(tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    two = await started(3, 2, 1)
    assert begun == [3], "who comes next is not passed by"
    await ended(two[1:2])
    await asyncio.sleep(0.01)
    assert begun == [3, 1], "one that leaves while it waits keeps nothing"
    await ended(two)
    four = await started(1, 1, 1, 1, 16)
    assert begun[2:] == [1, 1, 1, 1]
    await ended(four[:4])
    await asyncio.sleep(0.01)
    assert begun[6:] == [16], "more than there will ever be room for are all there is room for"
    await ended(four)
    assert places.working == 0


async def test_past_the_deadline_of_the_server(serve: Serve):
    async with serve(deadline_seconds=0.5) as served:
        answer = await served.client.post("/v1/verify", json={**ROW, "steps": ["slow code"], "deadline_seconds": 9})
        assert (answer.status_code, answer.json()["error"]["message"]) == (504, "not done in 0.5 s")


async def test_one_row_past_the_deadline_does_not_touch_the_others(serve: Serve):
    async with serve() as served:
        rows = [ROW, {**ROW, "steps": ["slow code"]}]
        answer = await served.client.post("/v1/score", json={"rows": rows, "deadline_seconds": 4})
        assert [each["score"] for each in answer.json()["results"]] == [0.9, None]
        assert answer.json()["results"][1]["error"] == "not done in 4 s"


HALF = b"POST /v1/verify HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"
CHAT = "<|im_start|>user\nP<|im_end|>\n<|im_start|>assistant\n"


async def test_openrlhf(serve: Serve):
    """As its client asks, and with what its client reads: a list of numbers under ``rewards``."""
    async with serve() as served:
        asked = {
            "query": [f"{CHAT}one\n\ntwo<|im_end|>", f"{CHAT}one\n\nwrong"],
            "prompts": [CHAT] * 2,
            "labels": [1, 2],
        }
        answer = (await served.client.post("/get_reward", json=asked)).json()
        assert answer == {"rewards": [0.9, A_TENTH], "scores": [0.9, A_TENTH], "extra_logs": {"unscored": [0, 0]}}
        unscored = {"query": ["Pone", "Pno verdict"], "prompts": ["P", "P"]}
        answer = await served.client.post("/get_reward", json=unscored)
        assert answer.status_code == 502
        assert "1 of 2 responses are unscored, from 1 on" in answer.json()["error"]["message"]
    async with serve(unscored_reward=-1) as served:
        answer = (await served.client.post("/get_reward", json=unscored)).json()
        assert (answer["rewards"], answer["extra_logs"]["unscored"]) == ([0.9, -1], [0, 1])


async def test_a_response_that_is_blank_is_unscored(serve: Serve):
    """A policy may end its text with its first token."""
    asked = {"query": ["Pone", "P ", "Ptwo\0"], "prompts": ["P"] * 3}
    async with serve(unscored_reward=-1) as served:
        answer = (await served.client.post("/get_reward", json=asked)).json()
        assert (answer["rewards"], answer["extra_logs"]["unscored"]) == ([0.9, -1, 0.9], [0, 1, 0])
    async with serve() as served:
        answer = await served.client.post("/get_reward", json=asked)
        assert answer.status_code == 502
        assert answer.json()["error"]["message"].endswith("from 1 on: the response is blank")


async def test_a_body_that_is_not_said_to_be_json(serve: Serve):
    async with serve() as served:
        for headers in ({}, {"content-type": "application/x-www-form-urlencoded"}):
            answer = await served.client.post("/v1/verify", content=json.dumps(ROW), headers=headers)
            assert (answer.status_code, "Content-Type: application/json" in answer.text) == (422, True)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (ScoreRequest, {"rows": [1] * 1000}),
        (ScoreRequest, {"rows": [{}] * 1000}),
        (ScoreRequest, {"rows": [ROW] * (MAX_ROWS + 1)}),
        (RewardRequest, {"query": [1] * 1000, "prompts": ["p"]}),
        (RewardRequest, {"query": ["p"], "prompts": [1] * 1000}),
        (VerifyRequest, {"problem": "p", "steps": [1] * 1000}),
    ],
)
def test_reading_ends_at_the_first_row_that_is_none(kind: type[BaseModel], body: Any):
    """Else a body of 4 MiB becomes two million errors."""
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(body)
    assert caught.value.error_count() <= 3


@pytest.mark.parametrize(("sent", "answered"), [(b"", False), (b"POST /v1/verify HT", False), (HALF, True)])
async def test_who_sends_nothing_or_half_is_not_waited_for(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, sent: bytes, answered: bool
):
    for module in ("connections", "middleware"):
        monkeypatch.setattr(f"genprm.serve.{module}.READ_SECONDS", 1.0)
    async with serve() as served, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(sent)
        said = await reader.read()
        assert (b" 408 " in said and b"the body has not come in 1 s" in said) == answered
        assert answered or said == b""
        writer.close()
        assert (await served.client.get("/health")).status_code == 200


async def test_more_connections_than_there_may_be(serve: Serve, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("genprm.serve.connections.most_connections", lambda: 3)
    async with serve() as served, asyncio.timeout(20):
        asked = asyncio.create_task(served.client.post("/v1/verify", json={**ROW, "steps": ["a little slow"]}))
        await served.until("genprm_rows_in_flight", 1)
        places = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(6)]
        assert [await reader.read() for reader, _ in places[:3]] == [b""] * 3, "the first ones have to go"
        assert (await asked).status_code == 200
        async with httpx.AsyncClient() as newcomer:
            assert (await newcomer.get(f"http://127.0.0.1:{served.port}/health")).status_code == 200
        for _, writer in places:
            writer.close()


async def test_metrics(serve: Serve):
    async with serve() as served:
        await served.client.post("/v1/verify", json={**ROW, "votes": 2})
        assert await served.figure('genprm_code_runs_total{status="ok"}') == 4
        assert await served.figure('genprm_steps_total{verdict="correct"}') == 2
        assert await served.figure('genprm_tokens_total{kind="written"}') > 10
        assert await served.figure('genprm_requests_total{path="/v1/verify",status="200"}') == 1
        assert await served.figure("genprm_kernels_busy") == 0
        await served.client.get("/wp-login.php")
        assert await served.figure('genprm_requests_total{path="other",status="404"}') == 1


# What it refuses

BAD: list[tuple[Any, int, str, str | None]] = [
    ('{"problem": ', 422, "not valid JSON, at character 12", None),
    (b'{"problem": "\xff"}', 422, "not UTF-8 text", None),
    ('{"problem": ' + "[" * 2000 + "]" * 2000 + "}", 422, "nested too deep", None),
    ('{"problem": ' + "1" * 4000 + "}", 422, "valid string", "problem"),
    ("[]", 422, "valid dictionary", None),
    ({"steps": ["s"]}, 422, "Field required", "problem"),
    ({**ROW, "steps": []}, 422, "at least 1 item", "steps"),
    ({**ROW, "steps": ["one", " "]}, 422, "is blank", "steps[1]"),
    ({**ROW, "steps": "one"}, 422, "valid tuple", "steps"),
    ({**ROW, "steps": ["one", 2]}, 422, "valid string", "steps[1]"),
    ({**ROW, "steps": ["s"] * 513}, 422, "at most 512 items", "steps"),
    ({**ROW, "problem": "a\0b"}, 422, "NUL character", "problem"),
    ('{"problem": "\\ud800", "steps": ["s"]}', 422, "", "problem"),
    ({**ROW, "votes": 0}, 422, "a number from 1 to 16", "votes"),
    ({**ROW, "votes": 17}, 422, "a number from 1 to 16", "votes"),
    ({**ROW, "deadline_seconds": 0}, 422, "greater than or equal to 1", "deadline_seconds"),
    ({**ROW, "model": "another"}, 404, "'another' is not served here, but 'scripted'", None),
    ("x" * 5000, 413, "the body is over 4096 bytes", None),
]


@pytest.mark.parametrize(("body", "status", "message", "field"), BAD, ids=lambda each: str(each)[:30])
async def test_bad_requests(serve: Serve, body: Any, status: int, message: str, field: str | None):
    async with serve(max_body=4096) as served:
        content = body if isinstance(body, str | bytes) else json.dumps(body)
        answer = await served.client.post("/v1/verify", content=content, headers={"content-type": "application/json"})
        fault = answer.json()["error"]
        assert (answer.status_code, message in fault["message"], fault["field"]) == (status, True, field), fault
        assert answer.json()["request_id"] == answer.headers["x-request-id"]


async def test_a_body_without_a_length_is_limited_too(serve: Serve):
    async def endless() -> Any:
        while True:
            yield b" " * 1024

    async with serve(max_body=4096) as served:
        with contextlib.suppress(httpx.WriteError, httpx.ReadError):  # the server need not wait for the end of it
            answer = await served.client.post("/v1/verify", content=endless())
            assert (answer.status_code, answer.json()["error"]["type"]) == (413, "too_large")
        assert await served.figure('genprm_requests_total{path="/v1/verify",status="413"}') == 1


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"query": ["ab"], "prompts": ["a", "b"]}, "1 queries and 2 prompts"),
        ({"query": ["ab"], "prompts": ["b"]}, "query[0] does not begin with prompts[0]"),
        ({"query": ["a"], "prompts": [""]}, "prompts[0] has no problem"),
        ({"query": ["a"]}, "Field required"),
    ],
)
async def test_bad_reward_requests(serve: Serve, asked: Any, message: str):
    async with serve() as served:
        answer = await served.client.post("/get_reward", json=asked)
        assert (answer.status_code, message in answer.json()["error"]["message"]) == (422, True), answer.text


async def test_keys(serve: Serve):
    key, line = new_key()
    async with serve(keys=frozenset({line, new_key()[1]})) as served:
        for header in (None, f"Bearer {line}", "Bearer", f"Basic {key}", "Bearer ü", key):
            headers = {} if header is None else {"authorization": header.encode()}
            answer = await served.client.post("/v1/verify", json=ROW, headers=headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), header
        assert (await served.client.get("/metrics")).status_code == 401
        assert (await served.client.get("/health")).status_code == 200
        answer = await served.client.post("/v1/verify", json=ROW, headers={"authorization": f"Bearer {key}"})
        assert answer.status_code == 200


async def test_names_that_it_is_asked_by(serve: Serve):
    async with serve(hosts=("127.0.0.1", "::1")) as served:
        for host, status in [
            ("127.0.0.1:8000", 200),
            ("[::1]:8000", 200),
            ("evil.example", 421),
            ("[", 421),
            ("", 421),
        ]:
            assert (await served.client.get("/health", headers={"host": host})).status_code == status, host


# Back-pressure, deadlines, clients that leave


async def test_no_room(serve: Serve):
    """Of 20 requests at once, four are at work and three wait; every other one is told to come again."""
    async with serve(max_waiting=3) as served:
        row = {**ROW, "steps": ["a little slow"]}
        answers = await asyncio.gather(*(served.client.post("/v1/verify", json=row) for _ in range(20)))
        assert sorted(answer.status_code for answer in answers) == [200] * 7 + [429] * 13
        busy = next(answer for answer in answers if answer.status_code == 429)
        assert 1 <= int(busy.headers["retry-after"]) <= 60
        assert busy.json()["error"]["type"] == "busy"
        assert (await served.client.post("/v1/verify", json=ROW)).status_code == 200
        answer = await served.client.post("/v1/score", json={"rows": [ROW] * 8})
        assert (answer.status_code, answer.json()["error"]["message"]) == (413, "8 rows in one request: at most 7")


@pytest.mark.parametrize("what", ["slow code", "slow model"])
async def test_past_the_deadline(serve: Serve, what: str):
    async with serve() as served:
        row = {**ROW, "steps": [what], "deadline_seconds": 1}
        answer = await served.client.post("/v1/verify", json=row)
        assert (answer.status_code, answer.json()["error"]["type"]) == (408, "deadline")
        assert await served.figure("genprm_rows_in_flight") == 0
        await served.until("genprm_kernels_busy", 0)
        streamed = events((await served.client.post("/v1/verify", json={**row, "stream": True})).text)
        assert streamed[-1][0] == "error"
        assert streamed[-1][1]["error"]["message"] == "not done in 1 s"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("what", ["slow code", "slow model"])
async def test_a_client_that_leaves_stops_model_and_kernel(serve: Serve, what: str, stream: bool):
    async with serve() as served:
        row = {**ROW, "steps": ["one", what], "votes": 4, "stream": stream}
        with pytest.raises(httpx.ReadTimeout):
            async with served.client.stream("POST", "/v1/verify", json=row, timeout=2) as answer:
                await served.until("genprm_kernels_busy", 4)
                await answer.aread()
        await served.until("genprm_rows_in_flight", 0)
        await served.until("genprm_kernels_busy", 0)
        await served.until("genprm_rows_waiting", 0)


async def test_silence_is_broken_by_a_comment(serve: Serve, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("genprm.serve.events.HEARTBEAT", 0.1)
    async with serve() as served:
        row = {**ROW, "steps": ["a little slow"], "stream": True}
        said = (await served.client.post("/v1/verify", json=row)).text
        assert said.count(": still at work\n\n") >= 2
        assert [name for name, _ in events(said)][-1] == "result"


async def test_a_client_that_reads_nothing_holds_no_place(serve: Serve):
    async with serve() as served:
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", served.port))
        await asyncio.sleep(0.1)
        [connection] = [each for each in served.connections if _port(each, "peername") == deaf.getsockname()[1]]
        connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        body = json.dumps({**ROW, "steps": ["one"] * 200, "stream": True}).encode()
        head = ("POST /v1/verify HTTP/1.1", "host: x", "content-type: application/json", f"content-length: {len(body)}")
        deaf.sendall("\r\n".join((*head, "", "")).encode() + body)
        await served.until("genprm_steps_total", 200, seconds=60)
        await served.until("genprm_rows_in_flight", 0)
        assert connection.transport.get_write_buffer_size() > 0, "it reads"
        deaf.close()


def _port(connection: Any, end: str) -> int:
    return int(connection.transport.get_extra_info(end)[1])


@pytest.mark.parametrize("path", ["/code.css", "/static/katex/katex.min.js"])
async def test_clients_that_read_nothing_keep_nobody_out(serve: Serve, monkeypatch: pytest.MonkeyPatch, path: str):
    """Neither those whose answers wait in full, nor those in the middle of one, which are ended by themselves."""
    monkeypatch.setattr("genprm.serve.connections.most_connections", lambda: 4)
    for name in ("READ_SECONDS", "WRITE_SECONDS"):
        monkeypatch.setattr(f"genprm.serve.connections.{name}", 1.0)
    async with serve() as served, asyncio.timeout(60):
        deaf = []
        for _ in range(4):
            place = socket.socket()
            place.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            place.connect(("127.0.0.1", served.port))
            place.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode() * 300)
            deaf.append(place)
        await asyncio.sleep(4)
        async with httpx.AsyncClient(timeout=10) as newcomer:
            for _ in range(3):
                assert (await newcomer.get(f"http://127.0.0.1:{served.port}/health")).status_code == 200
        for place in deaf:
            if path.endswith("js"):
                with pytest.raises(OSError):
                    for _ in range(3):
                        place.sendall(b"x")
                        await asyncio.sleep(0.1)
            place.close()


async def test_who_leaves_a_little_unread_is_ended_too(serve: Serve, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("genprm.serve.connections.WRITE_SECONDS", 1.0)
    async with serve() as served, asyncio.timeout(60):
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(("127.0.0.1", served.port))
            deaf.setblocking(False)
            await asyncio.sleep(0.1)
            [connection] = served.connections
            while connection.transport.get_write_buffer_size() == 0:
                deaf.sendall(b"GET /code.css HTTP/1.1\r\nhost: x\r\n\r\n")
                await asyncio.sleep(0.01)
            assert connection.transport.get_write_buffer_size() < 1 << 16, "so little that asyncio does not mind"
            while connection in served.connections:
                await asyncio.sleep(0.05)


async def test_a_stream_is_counted_by_how_it_ended(serve: Serve):
    async with serve() as served:
        served.model.fails = ModelUnavailableError("no")
        counted = 'genprm_requests_total{path="/v1/verify",status="%d"}'
        await served.client.post("/v1/verify", json={**ROW, "problem": "failing", "stream": True})
        assert await served.figure(counted % 503) == 1
        with pytest.raises(httpx.ReadTimeout):
            row = {**ROW, "steps": ["slow model"], "stream": True}
            async with served.client.stream("POST", "/v1/verify", json=row, timeout=1) as answer:
                await answer.aread()
        await served.until(counted % 499, 1)
        assert await served.figure(counted % 200) == 0
        assert await served.figure('genprm_request_seconds_count{path="/v1/verify"}') == 0, "nobody was answered"


async def test_a_model_whose_server_is_away_at_the_deadline(serve: Serve):
    async with serve(deadline_seconds=0.5) as served:
        served.model.away = True
        slow = {**ROW, "steps": ["slow model"]}
        answer = await served.client.post("/v1/verify", json=slow)
        assert (answer.status_code, answer.json()["error"]["type"]) == (503, "model_unavailable")
        health = await served.client.get("/health")
        assert (health.status_code, health.json()["reason"]) == (503, "model_unavailable")
        assert (await served.client.post("/v1/score", json={"rows": [slow]})).status_code == 503
        served.model.away = False
        assert (await served.client.post("/v1/verify", json=slow)).status_code == 504
        assert await served.figure("genprm_failed_rows_total") == 3


async def test_a_fault_on_one_row_does_not_touch_the_others(serve: Serve):
    async with serve() as served:
        served.model.fails = RuntimeError("boom")
        answer = await served.client.post("/v1/score", json={"rows": [ROW, {**ROW, "id": "b", "problem": "failing"}]})
        good, bad = answer.json()["results"]
        assert (good["score"], bad["score"]) == (0.9, None)
        assert bad["error"]
        assert "boom" not in answer.text
        assert await served.figure("genprm_failed_rows_total") == 1


async def test_a_model_that_is_gone(serve: Serve):
    async with serve() as served:
        served.model.fails = ModelUnavailableError("no server")
        answer = await served.client.post("/v1/verify", json={**ROW, "problem": "failing"})
        assert (answer.status_code, answer.json()["error"]["type"]) == (503, "model_unavailable")
        health = await served.client.get("/health")
        assert (health.status_code, health.json()["reason"]) == (503, "model_unavailable")
        assert (await served.client.post("/v1/verify", json=ROW)).status_code == 200
        assert (await served.client.get("/health")).status_code == 200


async def test_a_fault_of_ours(serve: Serve, capfd: pytest.CaptureFixture[str]):
    async with serve() as served:
        served.model.fails = RuntimeError("boom")
        row = {**ROW, "problem": "failing"}
        answer = await served.client.post("/v1/verify", json=row)
        assert (answer.status_code, answer.json()["error"]["type"]) == (500, "internal")
        assert "boom" not in answer.text
        streamed = events((await served.client.post("/v1/verify", json={**row, "stream": True})).text)
        assert streamed[-1][1]["error"]["type"] == "internal"
        assert (await served.client.post("/v1/verify", json=ROW)).status_code == 200
    logged = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    assert ["boom" in line["traceback"] for line in logged if line["event"] == "broken"] == [True]
    assert [line["error"] for line in logged if line["event"] == "failed"] == ["RuntimeError: boom"]


# The description


async def test_the_examples_of_the_description_run(serve: Serve):
    async with serve() as served:
        described = (await served.client.get("/openapi.json")).json()
        run = 0
        for path, methods in described["paths"].items():
            if "post" in methods:
                reference = methods["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
                for example in described["components"]["schemas"][reference.rpartition("/")[2]]["examples"]:
                    answer = await served.client.post(path, json=example)
                    assert answer.status_code == 200, answer.text
                    run += 1
        assert run == 3


async def test_whatever_the_description_allows_is_answered(serve: Serve, tmp_path: Path):
    """Schemathesis: no 5xx, and every answer as described."""
    import sys

    async with serve(deadline_seconds=60) as served:
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{served.port}/openapi.json"]
        options = ["--max-examples", "25", "--seed", "1", "--checks", "not_a_server_error,status_code_conformance"]
        options += ["--request-timeout", "30"]  # of a busy machine: it has to end every process of a row
        process = await asyncio.create_subprocess_exec(
            *command, *options, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        said, _ = await asyncio.wait_for(process.communicate(), 250)
        assert process.returncode == 0, said.decode()[-4000:]
