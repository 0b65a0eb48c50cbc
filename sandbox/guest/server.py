"""The kernel server: imports everything once, then forks a kernel whenever a client asks for one.

Clients talk to it over a unix socket, ``{directory}/{id}/control``, in JSON lines:

    -> {"id": 1, "op": "hello"}                         <- {"id": 1, "ok": true, "server": ..., "isolated": ...}
    -> {"id": 2, "op": "spawn", "limits": {...}}        <- {"id": 2, "ok": true, "kernel": "k1", "key": "..."}
    -> {"id": 3, "op": "interrupt", "kernel": "k1"}     <- {"id": 3, "ok": true}
    -> {"id": 4, "op": "kill", "kernel": "k1"}          <- {"id": 4, "ok": true}   once every process is gone
    -> {"id": 5, "op": "fork", "kernel": "k1", "seed": 7}   <- {"id": 5, "ok": true, "kernel": "k2", "key": "..."}
                                                        <- {"event": "exit", "kernel": "k1", "signal": 9, ...}

A kernel's sockets are ``{directory}/{id}/k1-1`` to ``-5``. The server binds them, in a directory that no kernel's
user can enter: a kernel can neither replace them nor see a sibling's.
A kernel belongs to the connection that asked for it and dies with it; a server started with ``--owned``
ends when its first client leaves, so nothing outlives a client that was killed.

The server has one thread, ever: that is what makes forking from it safe.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import selectors
import shutil
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from sandbox.guest import confine, disk, processes, tether, version
from sandbox.guest.birth import EXIT_MEMORY, become_kernel
from sandbox.guest.channels import PORTS
from sandbox.guest.children import Child, Client, Measuring
from sandbox.guest.confine import KernelLimits
from sandbox.guest.preload import preload
from sandbox.guest.pressure import CROWDED, container_memory, may_be_spared, oom_kills
from sandbox.guest.seccomp import prepare
from sandbox.guest.users import BRANCHES, Family

WATCH_INTERVAL = 0.25
"""Seconds between two looks at the kernels' memory and process counts."""
DISK_INTERVAL = 0.02
"""Seconds between two looks whether the disk is filling."""
OWNER_DEADLINE = 60.0
"""Seconds an owned server waits for its owner to connect."""
WIPE_DEADLINE = 5.0
"""Seconds for removing all processes and files of one user, before it is begun anew."""
FORK_DEADLINE = 10.0
"""Seconds within which a kernel must have forked itself."""
WIPES = 8
"""How often it is tried to remove what a user has left."""
LINE_BYTES = 1 << 16
"""Longest request line."""


class Server:
    """See the module's docstring."""

    def __init__(
        self,
        directory: str,
        limits: KernelLimits,
        *,
        uid_base: int | None,
        owned: bool,
        starting: int,
        announce: Callable[[str], None],
    ) -> None:
        self._announce = announce
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
        self._count = 0
        self._families = 0
        self._measuring: Measuring | None = None
        self._selector = selectors.DefaultSelector()
        self._stopping = False
        self._missing: list[str] = []
        self._oom_kills = oom_kills()

    # Life

    def run(self) -> None:
        """Serve until SIGTERM, or until the owner leaves."""
        self._missing = preload()
        prepare(0 if self._uid_base is None else BRANCHES)
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
        self._announce(self._folder)
        started = watched = time.monotonic()
        try:
            while not self._stopping:
                for key, _ in self._selector.select(DISK_INTERVAL if self._children else WATCH_INTERVAL):
                    self._dispatch(key)
                self._reap()
                self._start_waiting()
                for client in [each for each in self._clients if each.gone]:
                    self._drop(client)
                if self._uid_base is not None and self._children:
                    self._watch_disk()
                now = time.monotonic()
                crowded = self._uid_base is not None and self._children and container_memory() >= CROWDED
                if crowded or now - watched >= WATCH_INTERVAL:
                    watched = now
                    self._watch()
                if crowded:
                    self._end_largest()
                if self._owned and self._owner is None and now - started > OWNER_DEADLINE:
                    break
        finally:
            self._end_all()
            processes.remove([self._folder])

    def _on_stop(self, *_: object) -> None:
        self._stopping = True

    def _dispatch(self, key: selectors.SelectorKey) -> None:
        if key.data == "listener":
            try:
                connection, _ = key.fileobj.accept()  # type: ignore[union-attr]
            except OSError:
                return  # it has gone again, or no descriptor is left: it will ask again
            connection.settimeout(1)  # a client that does not read its answers is dropped
            client = Client(connection)
            self._clients.append(client)
            if self._owned and self._owner is None:
                self._owner = client
            self._selector.register(connection, selectors.EVENT_READ, client)
        elif key.data == "wake":
            os.read(key.fd, 4096)
        # Whose event was in the same batch as another's may have gone with that.
        elif isinstance(key.data, Client):
            if key.data in self._clients:
                self._read(key.data)
        elif key.data.line.fileno() >= 0:
            self._on_tether(key.data)

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
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
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
        if child and child.client is not client:
            child = None  # nobody has a say in another client's kernels
        if op == "hello":
            client.send(
                {
                    "id": number, "ok": True, "server": self._id, "isolated": self._uid_base is not None,
                    "limits": dataclasses.asdict(self._limits), "missing": self._missing,
                    "python": sys.version.split()[0], "version": version(),
                }
            )  # fmt: skip
        elif op == "spawn":
            self._waiting.append((client, number, self._limits.clipped(request.get("limits", {}))))
        elif op == "interrupt":
            if child and child.pid and not child.reason:
                processes.signal_process(child.pid, signal.SIGINT)
            client.send({"id": number, "ok": True})
        elif op == "fork":
            self._branch(client, number, child, request["seed"])
        elif op == "kill" and child:
            child.kill_requests.append(number)
            self._kill(child, "killed")
        else:
            client.send({"id": number, "ok": op == "kill", "error": f"unknown operation {op!r}"})

    # Kernels

    def _start_waiting(self) -> None:
        while self._waiting:
            starting = sum(child.request is not None and child.origin is None for child in self._children.values())
            if starting >= self._starting_at_once:
                return
            client, number, limits = self._waiting.popleft()
            try:
                self._fork(client, number, limits)
            except OSError as error:
                client.send({"id": number, "ok": False, "error": f"fork: {error}"})

    def _new_child(
        self, client: Client, number: int, limits: KernelLimits, family: Family | None, uid: int | None
    ) -> tuple[Child, socket.socket, list[socket.socket]]:
        """A kernel's record, its end of the tether, and its listening sockets. Raises `OSError`."""
        self._count += 1
        name = f"k{self._count}"
        # Of a name that no other kernel can guess, and occupy before.
        folder = "/tmp" if uid is not None else self._folder
        home = os.path.join(folder, f"{self._id}-{name}-{secrets.token_hex(8)}")
        ours, theirs = tether.make_tether()
        listeners: list[socket.socket] = []
        old = os.umask(0o007)
        try:
            for port in PORTS.values():
                listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                listeners.append(listener)
                listener.bind(os.path.join(self._folder, f"{name}-{port}"))
                listener.listen(16)
        except OSError:
            for each in (ours, theirs, *listeners):
                each.close()
            self._unlink_sockets(name)
            raise
        finally:
            os.umask(old)
        return Child(name, client, home, limits, family, uid, ours, number), theirs, listeners

    def _add(self, child: Child) -> None:
        self._children[child.name] = child
        self._selector.register(child.line, selectors.EVENT_READ, child)

    def _fork(self, client: Client, number: int, limits: KernelLimits) -> None:
        family = None
        if self._uid_base is not None:
            family = Family(self._uid_base + self._families * (BRANCHES + 1))
            self._families += 1
        child, line, listeners = self._new_child(client, number, limits, family, family.first if family else None)
        try:
            pid = os.fork()
        except OSError:
            child.line.close()
            self._unlink_sockets(child.name)
            raise
        else:
            if pid == 0:
                self._forget_everything(child)
                become_kernel(listeners, line, child.key, family, child.home, limits)
        finally:
            for each in (line, *listeners):
                each.close()
        child.pid = pid
        self._add(child)

    def _forget_everything(self, child: Child) -> None:
        """In a forked child: drop the keys of the other kernels, and the sockets whose descriptors will be closed."""
        for client in self._clients:
            client.connection.detach()
        for other in (*self._children.values(), child):
            other.line.detach()
        self._children.clear()
        self._waiting.clear()
        self._selector.close()  # which knows them all

    def _branch(self, client: Client, number: int, origin: Child | None, seed: int | None) -> None:
        """Have a kernel fork itself. Its process does it; we give the sockets, the user and the name."""
        try:
            if origin is None or origin.reason or origin.request is not None or origin.exited:
                raise ProcessLookupError("the kernel is gone")
            uid = ticket = None
            if origin.family is not None:
                uid, ticket = origin.family.next_member()
            child, line, listeners = self._new_child(client, number, origin.limits, origin.family, uid)
        except IndexError:
            self._refuse(client, number, f"a session can be forked {BRANCHES} times", state=True)
            return
        except OSError as error:
            self._refuse(client, number, f"fork: {error}")
            return
        child.origin, child.base_kib = origin.name, origin.base_kib
        self._add(child)
        try:
            own = {"key": child.key, "uid": uid, "ticket": ticket, "home": child.home, "seed": seed}
            tether.send(child.line, own)
            shared = {"server": os.getpid(), "old_home": origin.home, "subreaper": uid is None}
            tether.send(origin.line, shared, [*(each.fileno() for each in listeners), line.fileno()])
            origin.asked.append(child.name)
        except OSError as error:
            self._fail(child, f"fork: {error}")
        finally:
            for each in (line, *listeners):
                each.close()

    def _refuse(self, client: Client, number: int, error: str, *, state: bool = False) -> None:
        """``state``: it is the state of the kernel that forbids it, not something that we lack."""
        client.send({"id": number, "ok": False, "error": error, "state": state})

    def _fail(self, child: Child, error: str, *, state: bool = False) -> None:
        """A kernel did not come to life: say so, and remove what there is of it."""
        number, child.request = child.request, None
        if number is not None:
            self._refuse(child.client, number, error, state=state)
        self._kill(child, "refused")

    def _on_tether(self, child: Child) -> None:
        try:
            message, _ = tether.receive(child.line)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            message = {}
        if "tickets" in message and child.family and child.pid and not child.family.tickets:
            child.family.tickets = message["tickets"]
        elif "ready" in message and child.request is not None:
            self._on_ready(child, message["ready"])
        elif ("forked" in message or "refused" in message) and child.asked:
            branch = self._children.get(child.asked.popleft())
            if branch and "refused" in message:
                self._fail(branch, str(message["refused"])[:2000], state=True)
            elif branch and branch.line.fileno() < 0:
                self._fail(branch, "the forked kernel died")
        else:  # it is closed, or says what nobody asked for: nobody listens to it any more
            self._selector.unregister(child.line)
            child.line.close()
            origin = self._children.get(child.origin or "")
            if child.request is not None and not (origin and child.name in origin.asked and not message):
                self._fail(child, str(message.get("failed", "kernel died"))[:2000])

    def _on_ready(self, child: Child, pid: Any) -> None:
        if child.pid is not None:
            found = processes.one(child.pid)
            child.base_kib = found.memory_kib if found else 0
        else:
            # The word of a process that may lie: it must be our child, and the user that only it can have become.
            found = processes.one(pid) if isinstance(pid, int) else None
            if not found or (found.parent, found.uid) != (os.getpid(), os.getuid() if child.uid is None else child.uid):
                self._fail(child, "the forked kernel could not be found")
                return
            child.pid = pid
        number, child.request = child.request, None
        child.client.send({"id": number, "ok": True, "kernel": child.name, "key": child.key})

    def _kill(self, child: Child, reason: str) -> None:
        if child.reason is None:
            child.reason = reason
            if child.pid is None:
                child.exited = True
            else:
                if child.uid is None:
                    processes.signal_process(child.pid, signal.SIGSTOP)
                    processes.kill_below(child.pid)
                processes.signal_process(child.pid, signal.SIGKILL)
            if child.uid is not None:
                self._wipe(child, child.uid)  # at once: something of it may keep the kernel from ending
            else:
                child.wiped = child.wiped or child.pid is None
            self._forget_if_gone(child)

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
            # Its own fault, or not: it may have been the smallest of many.
            left = sum(each.memory_kib for each in processes.table().values() if each.uid == child.uid)
            child.held_kib = max(child.held_kib, left)
            reason = "memory" if child.may_hold_too_much else "container memory"
        self._oom_kills = out_of_memory
        child.reason = reason or "died"
        child.exited = True
        event = {"event": "exit", "kernel": child.name, "code": max(code, 0), "signal": max(-code, 0), "reason": reason}
        child.client.send(event)
        if child.request is not None:
            self._refuse(child.client, child.request, "kernel died")
            child.request = None
        for branch in [each for each in self._children.values() if each.origin == child.name and each.pid is None]:
            self._fail(branch, "the kernel died", state=True)
        if child.uid is None:
            self._kill_orphans()
            child.wiped = True
        elif child.wiper is None and not child.wiped:
            self._wipe(child, child.uid)
        self._forget_if_gone(child)

    def _kill_orphans(self) -> None:
        """Without users: what a kernel has left behind has become our child, as has a branch on its way to us."""
        if all(child.pid is not None for child in self._children.values()):
            processes.kill_orphans({child.pid for child in self._children.values()})

    def _wipe_stray(self, uid: int) -> None:
        """End a user that no kernel has: a guest has used a ticket that it should not have kept."""
        nobody = socket.socket(socket.AF_UNIX)
        nobody.close()
        client = Client(nobody)
        client.gone = True
        self._count += 1
        stray = Child(f"k{self._count}", client, "", self._limits, None, uid, nobody, None)
        stray.reason, stray.exited = "stray", True
        self._children[stray.name] = stray
        self._wipe(stray, uid)

    def _wipe(self, child: Child, uid: int) -> None:
        child.wipes += 1
        if child.wipes > WIPES:
            child.wiped = True  # two have conspired to leave files that neither can remove: see docs/sandbox.md
            self._forget_if_gone(child)
            return
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
        if self._children.pop(child.name, None) is None:
            return
        if child.line.fileno() >= 0:
            self._selector.unregister(child.line)
            child.line.close()
        for number in child.kill_requests:
            child.client.send({"id": number, "ok": True})
        if child.uid is None:
            processes.remove([child.home])
        self._unlink_sockets(child.name)

    def _unlink_sockets(self, name: str) -> None:
        for port in PORTS.values():
            try:
                os.unlink(os.path.join(self._folder, f"{name}-{port}"))
            except FileNotFoundError:
                pass

    def _watch(self) -> None:
        if not self._children:
            return
        if self._uid_base is None:
            self._kill_orphans()
        found = processes.table()
        if self._uid_base is not None:
            living = {child.uid for child in self._children.values()}
            for uid in {each.uid for each in found.values()} - living:
                if uid >= self._uid_base:
                    self._wipe_stray(uid)
        for child in list(self._children.values()):
            if child.uid is not None and child.reason is not None:
                if child.wiper is None and not child.wiped:
                    self._wipe(child, child.uid)
                elif child.wiper is not None and time.monotonic() - child.wiping_since > WIPE_DEADLINE:
                    processes.signal_process(child.wiper, signal.SIGKILL)  # stopped by what it should kill
                continue
            if child.exited:
                continue
            if child.pid is None:
                if time.monotonic() - child.born > FORK_DEADLINE:
                    self._fail(child, f"the kernel did not fork within {FORK_DEADLINE:g} s", state=True)
                continue
            if child.uid is None:
                pids = [child.pid, *processes.below(child.pid, found)]
            else:
                pids = [pid for pid, process in found.items() if process.uid == child.uid]
            # Once it is ready, that is: a kernel that is being born has not set its score yet.
            if child.uid is not None and child.request is None and any(map(may_be_spared, pids)):
                self._kill(child, "died")  # it has made itself less likely to be killed than the server
                continue
            mine = [found[pid] for pid in pids if pid in found]
            # What a process shares with the server since the fork is not its own. One that was executed anew, or has
            # written all over it, shares nothing, and that cannot be seen from here: see `_end_largest`.
            used = sum(max(0, process.memory_kib - child.base_kib) for process in mine)
            child.held_kib = sum(process.memory_kib for process in mine)
            if used > child.limits.memory_mib * 1024:
                self._kill(child, "memory")
            elif sum(process.threads for process in mine) > child.limits.processes + 8:
                self._kill(child, "processes")

    def _end_largest(self) -> None:
        """Before the container is full: end the kernel whose processes hold most, as if they shared nothing."""
        child = max(self._children.values(), key=lambda each: each.held_kib, default=None)
        if child and child.reason is None and child.may_hold_too_much:
            self._kill(child, "memory")

    def _watch_disk(self) -> None:
        if self._measuring is None:
            if disk.crowded():
                users = [
                    (child.uid, child.family.first)
                    for child in self._children.values()
                    if child.uid is not None and child.family and not child.reason
                ]
                try:
                    self._measuring = Measuring(*disk.start_measuring(users))
                except OSError:
                    return  # the process limit is reached: next time
            return
        measuring = self._measuring
        try:
            while data := os.read(measuring.pipe, 1 << 16):
                measuring.said += data
                measuring.begun = time.monotonic()
            ended = True
        except BlockingIOError:
            ended = False
        if ended or time.monotonic() - measuring.begun > disk.MEASURING_DEADLINE:
            processes.signal_process(measuring.pid, signal.SIGKILL)
            os.close(measuring.pipe)
            self._measuring = None
            guilty = disk.offenders(measuring.said, late=not ended)
            for child in [each for each in self._children.values() if each.uid in guilty]:
                self._kill(child, "disk")

    def _end_all(self) -> None:
        for child in list(self._children.values()):
            self._kill(child, "server ended")
        deadline = time.monotonic() + 3
        while self._children and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.01)


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
