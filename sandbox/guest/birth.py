"""From a fresh fork of the kernel server to a kernel: give up what is the server's, take on limits, serve."""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
from typing import NoReturn

from sandbox.guest import confine, seccomp, tether, users
from sandbox.guest.channels import Channels
from sandbox.guest.confine import KernelLimits
from sandbox.guest.kernel import Kernel

EXIT_MEMORY = 77
"""Exit status of a kernel that ran out of memory outside the guest's code."""


def become_kernel(
    listeners: list[socket.socket],
    line: socket.socket,
    key: str,
    family: users.Family | None,
    home: str,
    limits: KernelLimits,
) -> NoReturn:
    """Be a kernel in this process, which was forked a moment ago, until it ends.

    ``line`` is the kernel's end of its tether, ``family`` its user and those of its branches (None: the server's own).
    """
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        confine.keep_only({line.fileno(), *(listener.fileno() for listener in listeners)})
        os.setsid()
        parent = os.getppid()
        confine.prefer_for_oom()
        if family is not None:
            users.become_first(family)
        confine.prctl(confine.PR_SET_PDEATHSIG, signal.SIGKILL)
        if family is None:
            confine.prctl(confine.PR_SET_CHILD_SUBREAPER, 1)
        if os.getppid() != parent:
            os._exit(1)
        os.umask(0o077)
        os.mkdir(home, 0o700)
        os.chdir(home)
        confine.set_environment(home)
        confine.set_limits(limits, count_processes=family is not None)
        first, count = (family.first + 1, users.BRANCHES) if family else (0, 0)
        seccomp.install(first, count, lambda tickets: line.sendmsg([tether.TICKETS, tickets]))
        # The same state for every kernel: the same code prints the same text, today and in a year.
        confine.seed(0)
        sys.set_int_max_str_digits(0)
        sys.argv = [""]
        kernel = Kernel(Channels(listeners, line), key.encode(), limits.output_bytes)
        tether.send(line, {"ready": os.getpid()})
        kernel.serve()
        status = 0
    except MemoryError:
        status = EXIT_MEMORY
    except BaseException:  # noqa: BLE001 - the one place that can still tell the server why
        try:
            tether.send(line, {"failed": traceback.format_exc()[-2000:]})
        except OSError:
            pass  # the kernel was ready: its exit status says the rest
    finally:
        os._exit(status)
