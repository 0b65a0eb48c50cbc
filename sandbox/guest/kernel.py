"""One Jupyter kernel, made to be forked: no event loop, no shell object, nothing imported late.

A stock ipykernel spends its start on an IPython shell, a debugger and four threads, and its cells on tornado.
This kernel speaks the same protocol (messages 5.4 over ZMTP, so `jupyter_client` drives it like any other)
and runs plain Python: a cell is ``exec`` in ``__main__``, the value of a last expression is its result.
IPython's magics and ``display`` are not there; `asyncio.run` works, because no loop is running. There is one
thread, so that a kernel can be forked whatever it has computed; a heartbeat is answered between cells.

Cells run in the main thread, which also owns the sockets: an interrupt is SIGINT, sent by the kernel server.
Nothing here is a wall. The guest shares this process and can forge every message of its own session;
walls are the process, its user and its container, and the host believes only what those tell it.
"""

from __future__ import annotations

import ast
import builtins
import linecache
import os
import signal
import sys
import threading
import traceback
import types
from codeop import compile_command
from typing import Any

from sandbox.guest.branch import Branch, make_branch
from sandbox.guest.channels import Channels, Peer
from sandbox.guest.streams import Budget, GuestStream, OutputLimit, clean, cut
from sandbox.guest.wire import PROTOCOL_VERSION, BadMessage, Message, Wire

TRACEBACK_FRAMES = 20
"""Most frames of a traceback that are formatted, counted from where the exception was raised."""

ERROR_TEXT_BYTES = 8192
"""Most bytes of an exception's message or traceback that are sent."""


class Kernel:
    """Serves the five Jupyter channels until it is shut down or killed."""

    def __init__(self, channels: Channels, key: bytes, output_bytes: int) -> None:
        self._channels = channels
        self._wire = Wire(key, "guest")
        self._budget = Budget(output_bytes)
        # The flusher threads of the streams send too; between cells the main thread has the sockets to itself.
        self._lock = threading.RLock()
        self._streams = [
            GuestStream(name, self._budget, self._lock, self._publish_stream) for name in ("stdout", "stderr")
        ]
        self._parent: Message = {}
        self._count = 0
        self._begun = False
        """From before a cell is said to have begun: it can be interrupted from there on."""
        self._executing = False
        self._sending = False
        self._interrupted = False
        self._running = True
        self._pid = os.getpid()
        self._thread = threading.get_ident()
        self._main = types.ModuleType("__main__")
        self._main.__dict__["__builtins__"] = builtins
        self._handlers = {
            "kernel_info_request": self._kernel_info,
            "execute_request": self._execute,
            "is_complete_request": self._is_complete,
            "complete_request": self._complete,
            "inspect_request": lambda _: {"status": "ok", "found": False, "data": {}, "metadata": {}},
            "history_request": lambda _: {"status": "ok", "history": []},
            "comm_info_request": lambda _: {"status": "ok", "comms": {}},
            "interrupt_request": lambda _: {"status": "ok"},
            "shutdown_request": self._shutdown,
        }

    def serve(self) -> None:
        """Answer requests, one at a time, in the calling thread (which must be the main one)."""
        sys.modules["__main__"] = self._main
        signal.signal(signal.SIGINT, self._on_interrupt)
        os.register_at_fork(after_in_child=self._mute)
        self._install_streams()
        self._publish("status", {"execution_state": "starting"}, {})
        while self._running:
            try:
                for arrival in self._channels.wait():
                    if arrival is None:
                        branch = make_branch(self._channels)
                        if branch is not None:
                            self._become(branch)
                            break
                    else:
                        self._serve_message(*arrival)
            except KeyboardInterrupt:
                continue
        self._channels.close()

    def _become(self, branch: Branch) -> None:
        """Go on as another kernel, in a process forked from this one."""
        self._channels, self._wire, self._pid = branch.channels, Wire(branch.key, "guest"), os.getpid()
        self._renew_streams(muted=False)
        self._publish("status", {"execution_state": "starting"}, {})

    def _mute(self) -> None:
        """In a process that the guest's code has forked, which says nothing for the kernel."""
        self._renew_streams(muted=True)

    def _renew_streams(self, *, muted: bool) -> None:
        self._lock = threading.RLock()
        for stream in self._streams:
            stream.renew(self._lock, muted=muted)

    def _serve_message(self, peer: Peer, frames: list[bytes]) -> None:
        if peer.channel == "iopub":
            self._welcome(peer, frames[0])
        elif peer.channel == "hb":
            self._channels.send(peer, frames)
        elif peer.channel in ("shell", "control"):
            self._answer(peer, frames)

    def _welcome(self, peer: Peer, event: bytes) -> None:
        # A subscriber that has read the welcome message will miss nothing that is published after it.
        if peer.subscribe(event):
            content = {"subscription": event[1:].decode("utf-8", "replace")}
            _, frames = self._wire.pack("iopub_welcome", content)
            self._channels.send(peer, [event[1:], *frames])

    def _answer(self, peer: Peer, frames: list[bytes]) -> None:
        try:
            route, message = self._wire.unpack(frames)
        except BadMessage:
            return
        kind = message["header"]["msg_type"]
        handler = self._handlers.get(kind)
        if handler is None:
            return
        self._parent = message["header"]
        self._publish("status", {"execution_state": "busy"})
        reply = handler(message["content"])
        metadata = {"truncated": True} if reply.pop("truncated", False) else {}
        # What is asked after the reply was read is meant: only what waits by now is aborted.
        stopped = reply["status"] == "error" and message["content"].get("stop_on_error", True)
        queued = self._channels.take_waiting(peer) if stopped else []
        self._reply(peer, kind, reply, route, metadata)
        self._publish("status", {"execution_state": "idle"})
        self._abort(peer, queued)

    def _reply(self, peer: Peer, request: str, content: Message, route: list[bytes], metadata: Message) -> None:
        kind = request.replace("_request", "_reply")
        _, frames = self._wire.pack(kind, content, self._parent, route=route, metadata=metadata)
        self._channels.send(peer, frames)

    def _abort(self, peer: Peer, queued: list[list[bytes]]) -> None:
        for frames in queued:
            try:
                route, message = self._wire.unpack(frames)
            except BadMessage:
                continue
            self._parent = message["header"]
            self._publish("status", {"execution_state": "busy"})
            self._reply(peer, message["header"]["msg_type"], {"status": "aborted"}, route, {})
            self._publish("status", {"execution_state": "idle"})

    def _publish(self, kind: str, content: Message, parent: Message | None = None) -> None:
        if os.getpid() != self._pid:
            return
        with self._lock:
            in_main = threading.get_ident() == self._thread
            self._sending = in_main
            topic = kind.encode()
            _, frames = self._wire.pack(kind, content, self._parent if parent is None else parent)
            self._channels.publish(topic, [topic, *frames])
            self._sending = False
        if in_main and self._executing:
            self._raise_interrupt()

    def _raise_interrupt(self) -> None:
        if self._interrupted:
            self._interrupted = False
            raise KeyboardInterrupt

    def _publish_stream(self, name: str, text: str) -> None:
        self._publish("stream", {"name": name, "text": text})

    def _install_streams(self) -> None:
        sys.stdout, sys.stderr = self._streams
        sys.displayhook = self._display

    def _on_interrupt(self, _number: int, _frame: types.FrameType | None) -> None:
        # Raised in the middle of a multipart send, it would leave half a message on the socket.
        if self._begun and (self._sending or not self._executing):
            self._interrupted = True
        elif self._executing:
            raise KeyboardInterrupt

    # Execution

    def _execute(self, content: Message) -> Message:
        code, silent = content.get("code", ""), bool(content.get("silent"))
        signal.signal(signal.SIGINT, self._on_interrupt)
        self._interrupted, self._begun = False, True
        if not silent:
            self._count += 1
            shown = cut(code, self._budget.limit)
            self._publish("execute_input", {"code": shown, "execution_count": self._count})
        self._budget.renew()
        self._install_streams()
        for stream in self._streams:
            stream.begin()
        reply: Message = {"status": "ok", "execution_count": self._count, "payload": [], "user_expressions": {}}
        try:
            self._executing = True
            try:
                self._raise_interrupt()
                self._run_cell(code, silent)
                expressions = content.get("user_expressions") or {}
                reply["user_expressions"] = {name: self._evaluate(text) for name, text in expressions.items()}
            finally:
                self._executing = self._begun = self._interrupted = False
        except SystemExit as error:
            # exit() and sys.exit(0) end the cell, not the kernel; any other code is the cell's failure.
            if not (error.code is None or (type(error.code) is int and error.code == 0)):
                reply.update(self._error(error))
        except BaseException as error:  # noqa: BLE001 - whatever the guest raises is the cell's outcome
            reply.update(self._error(error))
        if os.getpid() != self._pid:
            os._exit(0)  # a fork made by the cell must not go on to answer for the kernel
        self._install_streams()
        for stream in self._streams:
            stream.end()
        if reply["status"] == "error" and not silent:
            self._publish("error", {name: reply[name] for name in ("ename", "evalue", "traceback")})
        reply["truncated"] = self._budget.exceeded
        return reply

    def _run_cell(self, code: str, silent: bool) -> None:
        filename = f"<cell {self._count}>"
        linecache.cache[filename] = (len(code), None, code.splitlines(keepends=True), filename)
        # Not ast.parse, which would stand in the traceback of a syntax error.
        tree = compile(code, filename, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
        assert isinstance(tree, ast.Module)
        last = None
        if tree.body and isinstance(tree.body[-1], ast.Expr):
            last = tree.body[-1]
            del tree.body[-1]
        namespace = self._main.__dict__
        exec(compile(tree, filename, "exec", dont_inherit=True), namespace)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), filename, "eval", dont_inherit=True), namespace)
            if not silent:
                sys.displayhook(value)

    def _display(self, value: Any) -> None:
        if value is None:
            return
        self._main.__dict__["_"] = value
        text = clean(self._budget.take(repr(value)))
        content = {"execution_count": self._count, "data": {"text/plain": text}, "metadata": {}}
        for stream in self._streams:
            stream.send_pending()
        self._publish("execute_result", content)

    def _evaluate(self, expression: str) -> Message:
        try:
            value = eval(compile(expression, "<expression>", "eval", dont_inherit=True), self._main.__dict__)
            return {"status": "ok", "data": {"text/plain": clean(self._budget.take(repr(value)))}, "metadata": {}}
        except Exception as error:  # noqa: BLE001 - the expression is the guest's code
            return self._error(error)

    def _error(self, error: BaseException) -> Message:
        name = type(error).__name__
        try:
            value = str(error)
            if isinstance(error, SystemError) and value == "error return without exception set":
                name, value = "MemoryError", "no memory for another frame"  # what CPython 3.11 makes of that
        except BaseException:  # noqa: BLE001 - a guest's exception may have a broken __str__
            value = f"<unprintable {name}>"
        value = cut(value, ERROR_TEXT_BYTES)
        try:
            lines = traceback.format_tb(_last_frames(error))
            if isinstance(error, SyntaxError):
                lines += traceback.format_exception_only(error)
            else:
                lines.append(f"{name}: {value}")
        except BaseException:  # noqa: BLE001 - formatting may run the guest's code, or want memory that is not there
            lines = [f"{name}: {value}"]
        return {
            "status": "error",
            "ename": "OutputLimit" if isinstance(error, OutputLimit) else cut(name, ERROR_TEXT_BYTES),
            "evalue": value,
            "traceback": cut("".join(lines), ERROR_TEXT_BYTES).splitlines(),
        }

    # The other requests

    def _kernel_info(self, _content: Message) -> Message:
        version = sys.version.split()[0]
        return {
            "status": "ok",
            "protocol_version": PROTOCOL_VERSION,
            "implementation": "genprm-sandbox",
            "implementation_version": "1",
            "language_info": {
                "name": "python",
                "version": version,
                "mimetype": "text/x-python",
                "file_extension": ".py",
                "pygments_lexer": "python3",
                "codemirror_mode": {"name": "python", "version": 3},
                "nbconvert_exporter": "python",
            },
            "banner": f"Python {version}, isolated",
            "help_links": [],
        }

    def _is_complete(self, content: Message) -> Message:
        try:
            command = compile_command(content.get("code", ""), "<cell>", "exec")
        except (SyntaxError, ValueError, OverflowError):
            return {"status": "invalid"}
        return {"status": "complete"} if command else {"status": "incomplete", "indent": "    "}

    def _complete(self, content: Message) -> Message:
        cursor = content.get("cursor_pos", 0)
        start = cursor
        code = content.get("code", "")
        while start > 0 and (code[start - 1].isalnum() or code[start - 1] == "_"):
            start -= 1
        names = sorted(name for name in {*self._main.__dict__, *dir(builtins)} if name.startswith(code[start:cursor]))
        return {"status": "ok", "matches": names, "cursor_start": start, "cursor_end": cursor, "metadata": {}}

    def _shutdown(self, content: Message) -> Message:
        self._running = False
        return {"status": "ok", "restart": bool(content.get("restart"))}


def _last_frames(error: BaseException) -> types.TracebackType | None:
    """The guest's part of a traceback, its last `TRACEBACK_FRAMES` frames. It may be millions of frames deep."""
    first = error.__traceback__
    while first is not None and first.tb_frame.f_code.co_filename == __file__:
        first = first.tb_next
    ahead = first
    for _ in range(TRACEBACK_FRAMES):
        ahead = ahead and ahead.tb_next
    while ahead is not None and first is not None:
        first, ahead = first.tb_next, ahead.tb_next
    return first
