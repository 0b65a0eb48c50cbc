"""What an experiment runs is interrupted with it, and puts its work away."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENT = """
import signal, sys
from experiments.manifest import finished
signal.signal(signal.SIGTERM, signal.default_int_handler)
finished([sys.executable, "-c", sys.argv[1]])
"""
COMMAND = """
import signal, sys, time
def end(*_):
    time.sleep(1)
    print("put away", flush=True)
    sys.exit(130)
signal.signal(signal.SIGTERM, end)
print("begun", flush=True)
time.sleep(100)
"""


def test_what_it_runs_can_put_its_work_away():
    command = [sys.executable, "-c", EXPERIMENT, COMMAND]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.terminate()
        rest, wrong = process.communicate(timeout=60)
    assert rest == "put away\n"
    assert wrong.strip().endswith("KeyboardInterrupt")
