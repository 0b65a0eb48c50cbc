"""The kernel server: imports everything once, then forks a kernel whenever a client asks for one.

Clients talk to it over a unix socket, ``{directory}/{id}/control``, in JSON lines:

    -> {"id": 1, "op": "hello"}                         <- {"id": 1, "ok": true, "server": ..., "isolated": ...}
    -> {"id": 2, "op": "spawn", "limits": {...}}        <- {"id": 2, "ok": true, "kernel": "k1", "key": "..."}
    -> {"id": 3, "op": "interrupt", "kernel": "k1"}     <- {"id": 3, "ok": true}
    -> {"id": 4, "op": "kill", "kernel": "k1"}          <- {"id": 4, "ok": true}   once every process is gone
                                                        <- {"event": "exit", "kernel": "k1", "signal": 9, ...}

A kernel's sockets are ``{directory}/{id}/k1-1`` to ``-5``. They are bound before the kernel gives up its
rights, in a directory that its user can not enter: it can neither replace them nor see a sibling's.
A kernel belongs to the connection that asked for it and dies with it; a server started with ``--owned``
ends when its first client leaves, so nothing outlives a client that was killed.

The server has one thread and no zmq context, ever: that is what makes forking from it safe.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import secrets
import selectors
import shutil
import signal
import socket
import sys
import time
import traceback
from collections import deque
from typing import Any, NoReturn

from sandbox.guest import confine, processes
from sandbox.guest.confine import KernelLimits
from sandbox.guest.kernel import Kernel
from sandbox.guest.preload import preload
from sandbox.guest.seccomp import deny_calls

WATCH_INTERVAL = 0.25
"""Seconds between two looks at the kernels' memory and process counts."""
OWNER_DEADLINE = 60.0
"""Seconds an owned server waits for its owner to connect."""
WIPE_DEADLINE = 5.0
"""Seconds for removing all processes and files of one user, before it is begun anew."""
LINE_BYTES = 1 << 16
"""Longest request line."""
EXIT_MEMORY = 77
"""Exit status of a kernel that ran out of memory outside the guest's code."""


@dataclasses.dataclass
class Child:
    """A forked kernel, from its fork to the moment the last trace of it is gone."""

    name: str
    client: Client
    pid: int
    uid: int | None
    home: str
    limits: KernelLimits
    base_kib: int
    spawn_request: int | None
    key: str
    reason: str | None = None
    exited: bool = False
    wiped: bool = False
    wiper: int | None = None
    wiping_since: float = 0.0
    kill_requests: list[int] = dataclasses.field(default_factory=list)


class Client:
    """One connection on the control socket."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.received = b""
        self.gone = False

    def send(self, message: dict[str, Any]) -> None:
        if self.gone:
            return
        try:
            self.connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self.gone = True


class Server:
    """See the module's docstring."""

    def __init__(
        self, directory: str, limits: KernelLimits, *, uid_base: int | None, owned: bool, starting: int
    ) -> None:
        self._id = f"s{secrets.token_hex(4)}"
        self._folder = os.path.join(directory, self._id)
        self._limits = limits
        self._uid_base = uid_base
        self._owned = owned
        self._owner: Client | None = None
        self._starting_at_once = starting
        self._clients: list[Client] = []
        self._children: dict[str, Child] = {}
        self._waiting: deque[tuple[Client, int, KernelLimits]] = deque()
        self._ready_pipes: dict[int, Child] = {}
        self._count = 0
        self._selector = selectors.DefaultSelector()
        self._stopping = False
        self._missing: list[str] = []
        self._oom_kills = oom_kills()

    # Life

    def run(self) -> None:
        """Serve until SIGTERM, or until the owner leaves."""
        self._missing = preload()
        confine.prctl(confine.PR_SET_CHILD_SUBREAPER, 1)
        remove_dead_siblings(os.path.dirname(self._folder))
        old = os.umask(0o007)
        os.mkdir(self._folder, 0o770)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        staged = os.path.join(self._folder, ".control")
        listener.bind(staged)
        listener.listen(64)
        listener.setblocking(False)
        os.umask(old)
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN if self._owned else self._on_stop)
        self._selector.register(listener, selectors.EVENT_READ, "listener")
        self._selector.register(wake_read, selectors.EVENT_READ, "wake")
        # Renamed into place only now: whoever sees the socket can connect to it.
        os.rename(staged, os.path.join(self._folder, "control"))
        started = watched = time.monotonic()
        try:
            while not self._stopping:
                for key, _ in self._selector.select(WATCH_INTERVAL):
                    self._dispatch(key)
                self._reap()
                self._start_waiting()
                for client in [each for each in self._clients if each.gone]:
                    self._drop(client)
                now = time.monotonic()
                if now - watched >= WATCH_INTERVAL:
                    watched = now
                    self._watch()
                if self._owned and self._owner is None and now - started > OWNER_DEADLINE:
                    break
        finally:
            self._end_all()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _on_stop(self, *_: object) -> None:
        self._stopping = True

    def _dispatch(self, key: selectors.SelectorKey) -> None:
        if key.data == "listener":
            connection, _ = key.fileobj.accept()  # type: ignore[union-attr]
            connection.settimeout(1)  # a client that does not read its answers is dropped
            client = Client(connection)
            self._clients.append(client)
            if self._owned and self._owner is None:
                self._owner = client
            self._selector.register(connection, selectors.EVENT_READ, client)
        elif key.data == "wake":
            os.read(key.fd, 4096)
        elif isinstance(key.data, Client):
            self._read(key.data)
        else:
            self._on_ready(key.fd)

    def _read(self, client: Client) -> None:
        try:
            data = client.connection.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._drop(client)
            return
        *lines, client.received = (client.received + data).split(b"\n")
        try:
            for line in lines:
                self._serve(client, json.loads(line))
        except (ValueError, TypeError, KeyError, AttributeError):
            client.gone = True  # it does not speak our protocol
        if client.gone or len(client.received) > LINE_BYTES:
            self._drop(client)

    def _drop(self, client: Client) -> None:
        client.gone = True
        self._selector.unregister(client.connection)
        client.connection.close()
        self._clients.remove(client)
        self._waiting = deque(item for item in self._waiting if item[0] is not client)
        for child in list(self._children.values()):
            if child.client is client:
                self._kill(child, "client gone")
        if client is self._owner:
            self._stopping = True

    def _serve(self, client: Client, request: dict[str, Any]) -> None:
        number, op = request["id"], request["op"]
        child = self._children.get(request.get("kernel", ""))
        if op == "hello":
            client.send(
                {
                    "id": number, "ok": True, "server": self._id, "isolated": self._uid_base is not None,
                    "limits": dataclasses.asdict(self._limits), "missing": self._missing,
                    "python": sys.version.split()[0],
                }
            )  # fmt: skip
        elif op == "spawn":
            self._waiting.append((client, number, self._limits.clipped(request.get("limits", {}))))
        elif op == "interrupt":
            if child and not child.reason:
                processes.signal_process(child.pid, signal.SIGINT)
            client.send({"id": number, "ok": True})
        elif op == "kill" and child:
            child.kill_requests.append(number)
            self._kill(child, "killed")
        else:
            client.send({"id": number, "ok": op == "kill", "error": f"unknown operation {op!r}"})

    # Kernels

    def _start_waiting(self) -> None:
        while self._waiting and len(self._ready_pipes) < self._starting_at_once:
            client, number, limits = self._waiting.popleft()
            try:
                self._fork(client, number, limits)
            except OSError as error:
                client.send({"id": number, "ok": False, "error": f"fork: {error}"})

    def _fork(self, client: Client, number: int, limits: KernelLimits) -> None:
        self._count += 1
        name = f"k{self._count}"
        uid = None if self._uid_base is None else self._uid_base + self._count
        home = os.path.join("/tmp" if uid is not None else self._folder, f"{self._id}-{name}")
        key = secrets.token_hex(16)
        ready_read, ready_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._become_kernel(name, key, uid, home, limits, ready_write)
        os.close(ready_write)
        child = Child(name, client, pid, uid, home, limits, 0, number, key)
        self._children[name] = child
        self._ready_pipes[ready_read] = child
        self._selector.register(ready_read, selectors.EVENT_READ, "ready")

    def _become_kernel(
        self, name: str, key: str, uid: int | None, home: str, limits: KernelLimits, ready: int
    ) -> NoReturn:
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            confine.keep_only({ready})
            self._forget_siblings()
            os.setsid()
            parent = os.getppid()
            confine.prefer_for_oom()
            os.umask(0o007)
            deny_calls()  # before the kernel's sockets start threads, which inherit the filter
            kernel = Kernel(os.path.join(self._folder, name), key.encode(), limits.output_bytes)
            if uid is not None:
                confine.switch_user(uid)
            confine.prctl(confine.PR_SET_PDEATHSIG, signal.SIGKILL)
            confine.prctl(confine.PR_SET_CHILD_SUBREAPER, 1)
            if os.getppid() != parent:
                os._exit(1)
            os.umask(0o077)
            os.mkdir(home, 0o700)
            os.chdir(home)
            confine.set_environment(home)
            confine.set_limits(limits, count_processes=uid is not None)
            _seed()
            sys.argv = [""]
            os.write(ready, b"ok")
            os.close(ready)
            kernel.serve()
            status = 0
        except MemoryError:
            status = EXIT_MEMORY
        except BaseException:  # noqa: BLE001 - the one place that can still tell the server why
            try:
                os.write(ready, traceback.format_exc().encode()[-2000:])
            except OSError:
                pass  # the kernel was ready: its exit status says the rest
        finally:
            os._exit(status)

    def _forget_siblings(self) -> None:
        """In a forked child: drop the keys of the other kernels, and the sockets whose descriptors are closed."""
        for client in self._clients:
            client.connection.detach()
        self._children.clear()
        self._ready_pipes.clear()
        self._waiting.clear()

    def _on_ready(self, pipe: int) -> None:
        said = os.read(pipe, 4096)
        self._selector.unregister(pipe)
        os.close(pipe)
        child = self._ready_pipes.pop(pipe)
        number, child.spawn_request = child.spawn_request, None
        if said == b"ok":
            found = processes.table().get(child.pid)
            child.base_kib = found.memory_kib if found else 0
            child.client.send({"id": number, "ok": True, "kernel": child.name, "key": child.key})
        else:
            child.client.send({"id": number, "ok": False, "error": said.decode("utf-8", "replace") or "kernel died"})

    def _kill(self, child: Child, reason: str) -> None:
        if child.reason is None:
            child.reason = reason
            if child.uid is None:
                processes.signal_process(child.pid, signal.SIGSTOP)
                processes.kill_below(child.pid)
            processes.signal_process(child.pid, signal.SIGKILL)
            if child.uid is not None:
                self._wipe(child, child.uid)  # at once: something of it may keep the kernel from ending

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if os.WIFSTOPPED(status):
                processes.signal_process(pid, signal.SIGKILL)  # it made us its tracer
                continue
            for child in list(self._children.values()):
                if child.pid == pid:
                    self._on_exit(child, os.waitstatus_to_exitcode(status))
                elif child.wiper == pid:
                    child.wiper = None  # where something is left, `_watch` tries again
                    child.wiped = status == 0
                    self._forget_if_gone(child)

    def _on_exit(self, child: Child, code: int) -> None:
        reason = child.reason or ("memory" if code == EXIT_MEMORY else None)
        out_of_memory = oom_kills()
        if code == -signal.SIGKILL and reason is None and out_of_memory > self._oom_kills:
            reason = "container memory"  # not this kernel's fault: it may have been the smallest of many
        self._oom_kills = out_of_memory
        child.reason = reason or "died"
        child.exited = True
        event = {"event": "exit", "kernel": child.name, "code": max(code, 0), "signal": max(-code, 0), "reason": reason}
        child.client.send(event)
        if child.uid is None:
            processes.kill_orphans({other.pid for other in self._children.values()})
            child.wiped = True
        elif child.wiper is None and not child.wiped:
            self._wipe(child, child.uid)
        self._forget_if_gone(child)

    def _wipe(self, child: Child, uid: int) -> None:
        try:
            child.wiper = os.fork()
        except OSError:
            return  # the process limit is reached: `_watch` tries again
        child.wiping_since = time.monotonic()
        if child.wiper == 0:
            processes.wipe_user(uid)

    def _forget_if_gone(self, child: Child) -> None:
        if child.exited and child.wiped:
            self._forget(child)

    def _forget(self, child: Child) -> None:
        del self._children[child.name]
        for number in child.kill_requests:
            child.client.send({"id": number, "ok": True})
        if child.uid is None:
            shutil.rmtree(child.home, ignore_errors=True)
        for port in range(1, 6):
            try:
                os.unlink(os.path.join(self._folder, f"{child.name}-{port}"))
            except FileNotFoundError:
                pass

    def _watch(self) -> None:
        if not self._children:
            return
        found = processes.table()
        for child in list(self._children.values()):
            if child.uid is not None and child.reason is not None:
                if child.wiper is None and not child.wiped:
                    self._wipe(child, child.uid)
                elif child.wiper is not None and time.monotonic() - child.wiping_since > WIPE_DEADLINE:
                    processes.signal_process(child.wiper, signal.SIGKILL)  # stopped by what it should kill
                continue
            if child.exited:
                continue
            if child.uid is None:
                pids = [child.pid, *processes.below(child.pid, found)]
            else:
                pids = [pid for pid, process in found.items() if process.uid == child.uid]
            mine = [found[pid] for pid in pids if pid in found]
            # What a process shares with the server since the fork is not its own.
            used = sum(max(0, process.memory_kib - child.base_kib) for process in mine)
            if used > child.limits.memory_mib * 1024:
                self._kill(child, "memory")
            elif sum(process.threads for process in mine) > child.limits.processes + 8:
                self._kill(child, "processes")

    def _end_all(self) -> None:
        for child in list(self._children.values()):
            self._kill(child, "server ended")
        deadline = time.monotonic() + 3
        while self._children and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.01)


def oom_kills() -> int:
    """How often the container's memory limit has made the kernel kill a process; 0 where that is not told."""
    for path in ("memory.events", "memory/memory.oom_control"):
        try:
            with open(f"/sys/fs/cgroup/{path}") as file:
                counts = dict(line.split() for line in file)
        except (OSError, ValueError):
            continue
        return int(counts.get("oom_kill", 0))
    return 0


def remove_dead_siblings(directory: str) -> None:
    """Remove what servers that were killed have left in a directory that is shared by several."""
    for entry in os.scandir(directory):
        control = os.path.join(entry.path, "control")
        if not entry.is_dir(follow_symlinks=False) or not os.path.exists(control):
            continue
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(control)
            except ConnectionRefusedError:
                shutil.rmtree(entry.path, ignore_errors=True)
            except OSError:
                continue


def _seed() -> None:
    """The same state for every kernel: the same code prints the same text, today and in a year."""
    random.seed(0)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(0)
    sys.set_int_max_str_digits(0)


def main() -> None:
    """Parse the command line and run the server."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.guest")
    parser.add_argument("--directory", required=True, help="where the server makes its directory of sockets")
    parser.add_argument("--uid-base", type=int, help="give every kernel a user of its own, counting from here")
    parser.add_argument("--owned", action="store_true", help="end when the first client leaves")
    parser.add_argument("--starting", type=int, default=2 * (os.cpu_count() or 1), help="kernels starting at once")
    for field in dataclasses.fields(KernelLimits):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=int, default=field.default)
    options = vars(parser.parse_args())
    limits = KernelLimits(**{field.name: options.pop(field.name) for field in dataclasses.fields(KernelLimits)})
    directory = options.pop("directory")
    try:
        Server(directory, limits, **options).run()
    except BaseException:
        with open(os.path.join(directory, "error.txt"), "w") as report:
            report.write(traceback.format_exc())
        raise
