"""The parts of the kernel that can be tested without one."""

from __future__ import annotations

import socket
import struct
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jupyter_client.session import Session

from sandbox.guest import mux, seccomp, zmtp
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


def test_messages_are_read_by_jupyter_client_and_the_other_way_round():
    _, frames = Wire(b"key", "guest").pack("stream", {"name": "stdout", "text": "\ud800"}, {"msg_id": "1"})
    session = Session(key=b"key")
    message = session.deserialize(session.feed_identities(frames)[1])
    assert (message["msg_type"], message["parent_header"]["msg_id"]) == ("stream", "1")
    request = session.serialize(session.msg("execute_request", {"code": "1"}), ident=[b"a", b"b"])
    route, received = Wire(b"key", "guest").unpack(request)
    assert (route, received["content"]) == ([b"a", b"b"], {"code": "1"})


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b"x"],
        [b"<IDS|MSG>"],
        [b"<IDS|MSG>", b"sig"],
        [b"<IDS|MSG>", b"sig", b"{}", b"{}", b"{}", b"{}"],
        [b"id", b"<IDS|MSG>", b"", b"1", b"2"],
    ],
)
def test_malformed_or_unsigned_messages_are_refused(frames: list[bytes]):
    with pytest.raises(BadMessage):
        Wire(b"key", "guest").unpack(frames)


@pytest.mark.parametrize("header", [b"1", b"[]", b"{}", b'{"msg_type": 1}'])
def test_signed_messages_without_a_type_are_refused(header: bytes):
    wire = Wire(b"key", "guest")
    parts = [header, b"{}", b"{}", b"{}"]
    with pytest.raises(BadMessage, match="header"):
        wire.unpack([b"<IDS|MSG>", wire._sign(parts), *parts])


messages = st.lists(st.lists(st.binary(max_size=600), min_size=1, max_size=8), max_size=5)


@given(messages, st.data())
def test_zmtp_survives_any_cut(sent: list[list[bytes]], data: st.DataObject):
    stream = zmtp.opening("DEALER") + b"".join(map(zmtp.encode, sent))
    decoder, received, rest = zmtp.Decoder(1 << 20), [], stream
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        received += decoder.feed(rest[:size])
        rest = rest[size:]
    assert received == sent


@given(st.binary(max_size=2000))
def test_zmtp_takes_any_bytes(noise: bytes):
    decoder = zmtp.Decoder(1000)
    decoder.feed(zmtp.opening("DEALER"))
    try:
        for message in decoder.feed(noise):
            assert sum(map(len, message)) <= 1000
    except zmtp.ProtocolError:
        pass
    assert len(decoder._buffer) <= 1009 or len(noise) > 1000


@pytest.mark.parametrize(
    "stream",
    [
        b"HTTP/1.1 200 OK" + bytes(60),
        zmtp.opening("PUB") + b"\x02" + b"\xff" * 8,
        zmtp.opening("PUB") + b"\x01\x00" * 33,
        zmtp.opening("PUB") + (b"\x01\xff" + bytes(255)) * 5,
        zmtp.opening("PUB") + b"\x80\x00",
    ],
)
def test_zmtp_refuses_what_is_too_much_or_no_zmtp(stream: bytes):
    with pytest.raises(zmtp.ProtocolError):
        zmtp.Decoder(1000).feed(stream)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.binary(max_size=99)), max_size=9), st.data())
def test_mux_survives_any_cut(sent: list[tuple[int, int, bytes]], data: st.DataObject):
    rest = b"".join(mux.frame(*each) for each in sent)
    frames, received = mux.Frames(), []
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        received += frames.feed(rest[:size])
        rest = rest[size:]
    assert received == sent


def test_mux_refuses_what_is_too_much():
    with pytest.raises(mux.MuxError):
        mux.Frames().feed(mux.HEADER.pack(1, mux.DATA, mux.FRAME_BYTES + 1))


def run_filter(code: bytes, number: int, arguments: list[int], audit: int = 0xC000003E) -> int:
    """A classic BPF interpreter, as far as our filter needs one."""
    data = struct.pack("=IIQ6Q", number, audit, 0, *(arguments + [0] * 6)[:6])
    a = x = stored = 0
    at = 0
    while True:
        kind, if_true, if_false, operand = struct.unpack_from("=HBBI", code, at * 8)
        at += 1
        if kind == seccomp.LOAD_WORD:
            [a] = struct.unpack_from("=I", data, operand)
        elif kind == seccomp.STORE:
            stored = a
        elif kind == seccomp.LOAD_STORED:
            a = stored
        elif kind == seccomp.LOAD_X:
            x = stored
        elif kind == seccomp.SUBTRACT:
            a = (a - operand) & 0xFFFFFFFF
        elif kind == seccomp.AND:
            a &= operand
        elif kind == seccomp.RETURN:
            return operand
        else:
            tests = {
                seccomp.JUMP_EQUAL: a == operand,
                seccomp.JUMP_EQUAL_X: a == x,
                seccomp.JUMP_AT_LEAST: a >= operand,
                seccomp.JUMP_ANY_BIT: bool(a & operand),
            }
            at += if_true if tests[kind] else if_false


USERS = 5


@given(
    st.one_of(st.integers(0, 600), st.sampled_from([9, 53, 56, 157])),
    st.lists(st.one_of(st.integers(0, 2**64 - 1), st.integers(995, 1010), st.integers(0, 6)), min_size=4, max_size=4),
    st.integers(0, USERS - 1),
    st.booleans(),
)
def test_the_filter_lets_users_change_with_their_own_ticket_only(number, arguments, user, honest):
    code, first_at = seccomp.program("x86_64", USERS)
    program, tickets = bytearray(code), [(index + 1) * 0x0101010201010101 for index in range(USERS)]
    struct.pack_into("=I", program, first_at, 1000)
    for index, ticket in enumerate(tickets):
        low, high = seccomp.ticket_places(first_at, index)
        struct.pack_into("=I", program, low, ticket & 0xFFFFFFFF)
        struct.pack_into("=I", program, high, ticket >> 32)
    setresuid = seccomp._MACHINES["x86_64"][3]
    if honest:
        number, arguments = setresuid, [1000 + user] * 3 + [tickets[user]]
    said = run_filter(bytes(program), number, arguments)
    words = [each & 0xFFFFFFFF for each in arguments]
    if number == setresuid:
        index = words[0] - 1000
        mine = 0 <= index < USERS and words[0] == words[1] == words[2] and arguments[3] == tickets[index]
        assert said == (seccomp.RETURN_ALLOW if mine else seccomp.RETURN_EPERM)
        assert mine or not honest
    elif number in seccomp._MACHINES["x86_64"][1].values():
        assert said == seccomp.RETURN_EPERM
    elif number == 9:
        shared = words[3] & seccomp.MAP_SHARED and words[3] & seccomp.MAP_ANONYMOUS
        assert said == (seccomp.RETURN_EPERM if shared else seccomp.RETURN_ALLOW)
    elif number == 53:
        reachable = words[0] != socket.AF_UNIX or words[1] & 0xF not in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)
        assert said == (seccomp.RETURN_EPERM if reachable else seccomp.RETURN_ALLOW)
    elif number == 157:
        assert said == (seccomp.RETURN_EPERM if words[:2] == [4, 0] else seccomp.RETURN_ALLOW)
    elif number == 56:
        assert said == (seccomp.RETURN_EPERM if words[0] & seccomp.NEW_NAMESPACES else seccomp.RETURN_ALLOW)
    elif number == seccomp.CLONE3:
        assert said == seccomp.RETURN_ENOSYS
    else:
        assert said == seccomp.RETURN_ALLOW
    assert run_filter(bytes(program), number | seccomp.X32_CALLS, arguments) == seccomp.RETURN_EPERM
    assert run_filter(bytes(program), number, arguments, audit=0x40000003) == seccomp.RETURN_EPERM


def test_a_client_can_lower_the_servers_limits_but_not_raise_them():
    server = KernelLimits(memory_mib=100, processes=10)
    assert server.clipped({"memory_mib": 50, "processes": 99}) == KernelLimits(memory_mib=50, processes=10)


def test_host_and_guest_agree_on_the_limits():
    assert Limits().for_kernel() == vars(KernelLimits())
