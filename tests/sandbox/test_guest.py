"""The parts of the kernel that can be tested without one."""

from __future__ import annotations

import threading

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from jupyter_client.session import Session

from sandbox.guest.confine import KernelLimits
from sandbox.guest.streams import Budget, GuestStream, OutputLimit, clean, cut
from sandbox.guest.wire import BadMessage, Wire
from sandbox.limits import Limits

anything = st.text(alphabet=st.characters(exclude_categories=[]))  # lone surrogates too


@given(anything)
def test_clean_text_can_be_encoded(text: str):
    assert clean(text).encode("utf-8").decode("utf-8") == clean(text)


@given(anything, st.integers(0, 50))
def test_cut_keeps_a_prefix_within_the_limit(text: str, limit: int):
    kept = cut(text, limit)
    assert len(kept.encode("utf-8")) <= limit
    assert clean(text).startswith(kept)


@given(st.lists(anything, max_size=20), st.integers(1, 40))
def test_budget_never_lets_more_through_than_its_limit(texts: list[str], limit: int):
    budget = Budget(limit)
    kept = [budget.take(text) for text in texts]
    assert sum(len(text.encode("utf-8", "replace")) for text in kept) <= limit
    whole = sum(len(text.encode("utf-8", "replace")) for text in texts)
    assert budget.exceeded == (whole > limit)


def make_stream(limit: int = 100) -> tuple[GuestStream, list[str]]:
    sent: list[str] = []
    stream = GuestStream("stdout", Budget(limit), threading.RLock(), lambda _name, text: sent.append(text))
    stream.begin()
    return stream, sent


def test_stream_raises_past_its_budget_and_keeps_what_fits():
    stream, sent = make_stream(10)
    with pytest.raises(OutputLimit):
        stream.write("x" * 11)
    stream.end()
    assert "".join(sent) == "x" * 10


def test_output_limit_is_no_ordinary_exception():
    assert not issubclass(OutputLimit, Exception)


def test_stream_joins_small_writes():
    stream, sent = make_stream(100_000)
    for _ in range(10_000):
        stream.write("x")
        stream.flush()
    stream.end()
    assert "".join(sent) == "x" * 10_000
    assert len(sent) < 100


def test_stream_takes_text_only_and_cannot_be_closed():
    stream, sent = make_stream()
    with pytest.raises(TypeError):
        stream.write(b"x")  # type: ignore[arg-type]
    stream.close()
    stream.write("y")
    stream.end()
    assert sent == ["y"]


def test_what_is_written_between_cells_is_dropped():
    stream, sent = make_stream()
    stream.end()
    stream.write("late")
    stream.begin()
    stream.end()
    assert sent == []


@pytest.fixture
def pair():
    context = zmq.Context()
    left, right = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    left.bind("inproc://pair")
    right.connect("inproc://pair")
    yield left, right
    context.destroy(linger=0)


def test_messages_are_read_by_jupyter_client_and_the_other_way_round(pair):
    left, right = pair
    Wire(b"key").send(left, "stream", {"name": "stdout", "text": "\ud800"}, {"msg_id": "1"})
    session = Session(key=b"key")
    _, frames = session.feed_identities(right.recv_multipart())
    message = session.deserialize(frames)
    assert (message["msg_type"], message["parent_header"]["msg_id"]) == ("stream", "1")
    session.send(right, "execute_request", {"code": "1"})
    _, received = Wire(b"key").receive(left)
    assert received["content"] == {"code": "1"}


@pytest.mark.parametrize(
    "frames",
    [
        [b"x"],
        [b"<IDS|MSG>"],
        [b"<IDS|MSG>", b"sig"],
        [b"<IDS|MSG>", b"sig", b"{}", b"{}", b"{}", b"{}"],
        [b"id", b"<IDS|MSG>", b"", b"1", b"2"],
    ],
)
def test_malformed_or_unsigned_messages_are_refused(pair, frames: list[bytes]):
    left, right = pair
    left.send_multipart(frames)
    with pytest.raises(BadMessage):
        Wire(b"key").receive(right)


def test_a_client_can_lower_the_servers_limits_but_not_raise_them():
    server = KernelLimits(memory_mib=100, processes=10)
    assert server.clipped({"memory_mib": 50, "processes": 99}) == KernelLimits(memory_mib=50, processes=10)


def test_host_and_guest_agree_on_the_limits():
    assert Limits().for_kernel() == vars(KernelLimits())
