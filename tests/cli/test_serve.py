"""`genprm serve` as an operator runs it: beginning, ending, and what is refused."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from genprm.cli.serve import answered_to
from tests.cli.conftest import Cli, command

ROW = {"problem": "P", "steps": ["one"]}


@contextmanager
def serving(script: Path, *options: object) -> Iterator[tuple[subprocess.Popen[str], str, list[dict[str, Any]]]]:
    """A server, its address, and its log so far."""
    arguments = ("serve", "--backend", "scripted", "--model", script, "--sandbox", "local", "--port", 0, *options)
    process = subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, text=True, cwd=script.parent)
    assert process.stderr is not None
    log: list[dict[str, Any]] = []
    lines = process.stderr
    for line in lines:
        if line.startswith("{"):
            log.append(json.loads(line))
            break
    reader = threading.Thread(target=lambda: log.extend(json.loads(line) for line in lines))
    reader.start()
    try:
        yield process, log[0]["url"], log
    finally:
        process.kill()
        process.wait()
        reader.join()


def until(is_so: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def until_at_work(url: str) -> None:
    """Until a row is at work: a client may take its time to ask."""
    until(lambda: "\ngenprm_rows_in_flight 1.0" in httpx.get(f"{url}/metrics").text)


def is_refused(url: str) -> bool:
    try:
        httpx.get(f"{url}/health")
    except httpx.TransportError:
        return True
    return False


def told(log: list[dict[str, Any]]) -> list[str]:
    """The log's events, but our own looks at it."""
    return [line["event"] for line in log if line.get("path") not in ("/metrics", "/health")]


@pytest.fixture
def slow_script(tmp_path: Path) -> Path:
    rules = [
        {"when": r"```python\n$", "text": "print(6 * 7)\n```\n"},
        {"when": "step by step: $", "text": "Hm.</analyze>\n", "seconds": 1.5},
        {"when": r"boxed\{$", "yes": 0.9},
        {"text": "</verify>\n<output>\n"},
    ]
    path = tmp_path / "slow.json"
    path.write_text(json.dumps(rules))
    return path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_lets_requests_end(slow_script: Path, number: signal.Signals):
    answers: list[int] = []
    with serving(slow_script) as (process, url, log):
        asking = threading.Thread(
            target=lambda: answers.append(httpx.post(f"{url}/v1/verify", json=ROW, timeout=30).status_code)
        )
        asking.start()
        until_at_work(url)
        process.send_signal(number)
        until(lambda: "draining" in [line["event"] for line in log])
        until(lambda: is_refused(url))
        asking.join()
        assert process.wait(10) == 0
    assert answers == [200]
    assert told(log) == ["listening", "draining", "request", "ended"]


def test_at_a_second_signal_it_ends_at_once(slow_script: Path):
    answers: list[httpx.Response] = []
    with serving(slow_script) as (process, url, log):
        row = {**ROW, "steps": ["one"] * 30}
        asking = threading.Thread(target=lambda: answers.append(httpx.post(f"{url}/v1/verify", json=row, timeout=60)))
        asking.start()
        until_at_work(url)
        process.send_signal(signal.SIGINT)
        until(lambda: "draining" in told(log))
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert time.monotonic() - begun < 10, "30 seconds are what it would have had"
        asking.join()
    [answer] = answers
    assert (answer.status_code, answer.json()["error"]["type"]) == (503, "ending")
    assert told(log).count("draining") == 1


def test_it_does_not_wait_for_ever(slow_script: Path):
    answers: list[httpx.Response] = []
    with serving(slow_script, "--drain-seconds", 1) as (process, url, log):
        row = {**ROW, "steps": ["one"] * 30}
        asking = threading.Thread(target=lambda: answers.append(httpx.post(f"{url}/v1/verify", json=row, timeout=30)))
        asking.start()
        until_at_work(url)
        begun = time.monotonic()
        process.terminate()
        assert process.wait(20) == 0
        assert time.monotonic() - begun < 10
        asking.join()
    [answer] = answers
    assert (answer.status_code, answer.json()["error"]["type"]) == (503, "ending")
    assert sorted(told(log)) == ["draining", "ended", "library", "listening", "request"]


def test_a_stream_is_told_that_the_server_ends(slow_script: Path):
    with serving(slow_script, "--drain-seconds", 1) as (process, url, log):
        row = {**ROW, "steps": ["one"] * 30, "stream": True}
        with httpx.stream("POST", f"{url}/v1/verify", json=row, timeout=30) as answer:
            lines = answer.iter_lines()
            assert next(lines) == "event: begun"
            process.terminate()
            *_, name, data, _ = lines
        assert (name, json.loads(data.removeprefix("data: "))["error"]["type"]) == ("event: error", "ending")
        assert process.wait(20) == 0
    assert sorted(line["event"] for line in log) == ["draining", "ended", "library", "listening", "request"]


def test_it_ends_where_nobody_reads_its_log(script: Path):
    arguments = ("serve", "--backend", "scripted", "--model", script, "--sandbox", "local", "--port", 0)
    process = subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    url = next(json.loads(line)["url"] for line in process.stderr if line.startswith("{"))
    process.stderr.close()
    assert httpx.post(f"{url}/v1/verify", json=ROW, timeout=30).status_code == 200
    process.terminate()
    assert process.wait(10) == 0


def test_killed_it_leaves_no_kernels(script: Path):
    with serving(script) as (process, url, _):
        httpx.post(f"{url}/v1/verify", json=ROW, timeout=30)
        [guest] = children(process.pid)
        process.kill()
        process.wait()
        deadline = time.monotonic() + 10
        while Path(f"/proc/{guest}").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(each) for each in found]


def test_keys(cli: Cli, script: Path, tmp_path: Path):
    made = dict(line.split(": ") for line in cli("serve", "key").stdout.replace(":  ", ": ").splitlines())
    (tmp_path / "keys").write_text(f"# who\n{made['hash']} the first client\n\n")
    with serving(script, "--api-keys", "keys", "--host", "0.0.0.0") as (_, url, _):
        url = url.replace("0.0.0.0", "127.0.0.1")
        assert httpx.post(f"{url}/v1/verify", json=ROW).status_code == 401
        answer = httpx.post(
            f"{url}/v1/verify", json=ROW, headers={"authorization": f"Bearer {made['key']}"}, timeout=30
        )
        assert answer.status_code == 200


def test_what_is_refused(cli: Cli, script: Path, tmp_path: Path):
    (tmp_path / "empty").write_text("# nobody\n")
    (tmp_path / "plain").write_text("genprm-not-a-hash\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for options, said in [
            (["--port", port], f"--host 127.0.0.1 --port {port}: Address already in use"),
            (["--host", "0.0.0.0"], "--host 0.0.0.0 is reached from elsewhere: --api-keys is needed"),
            (["--host", "no.such.host.invalid", "--api-keys", "plain"], "plain, line 1: expected the SHA-256 of a key"),
            (["--api-keys", "empty"], "empty: no keys in it"),
            (["--api-keys", "nowhere"], "nowhere: No such file"),
            (["--style", "nonsense"], "--style nonsense"),
            (["--max-body-mib", "inf"], "expected finite numbers"),
            (["--unscored-reward", "nan"], "expected finite numbers"),
        ]:
            done = cli("serve", "--backend", "scripted", "--model", script, "--sandbox", "local", *options)
            assert (done.returncode, said in done.stderr, len(done.stderr.splitlines())) == (2, True, 1), done.stderr


def test_names_that_are_answered_to():
    assert answered_to("127.0.0.2", []) == ("127.0.0.1", "localhost", "::1", "127.0.0.2")
    assert answered_to("0.0.0.0", []) == ()
    assert answered_to("0.0.0.0", ["localhost", "API"]) == ("localhost", "api")
