"""The figures an operator needs, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from genprm.records import Verdict, Verification
from genprm.serve.admission import Admission
from sandbox import RunStatus, Sandbox

UNSCORED = "unscored"
ASKED = ("/v1/verify", "/v1/score", "/get_reward")
ANSWERS = ("200", "401", "404", "408", "413", "422", "429", "499", "500", "502", "503", "504")
SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """Everything that is counted.

    Args:
        admission: who is at work, and who waits.
        sandbox: whose kernels are counted.
    """

    def __init__(self, admission: Admission, sandbox: Sandbox | None) -> None:
        registry = self._registry = CollectorRegistry()
        self.requests = Counter("genprm_requests", "Answered requests.", ["path", "status"], registry=registry)
        self.seconds = Histogram(
            "genprm_request_seconds", "From a request that gets what it asks for to the end of its answer.", ["path"],
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self._tokens = Counter("genprm_tokens", "Tokens of the rows that came out.", ["kind"], registry=registry)
        self._runs = Counter("genprm_code_runs", "Executions in the rows, by status.", ["status"], registry=registry)
        self._steps = Counter("genprm_steps", "Judged steps, and unscored ones.", ["verdict"], registry=registry)
        self.failed = Counter("genprm_failed_rows", "Rows that could not be verified.", registry=registry)
        working = Gauge("genprm_rows_in_flight", "Rows at work.", registry=registry)
        working.set_function(lambda: admission.working)
        waiting = Gauge("genprm_rows_waiting", "Rows that wait for their turn.", registry=registry)
        waiting.set_function(lambda: admission.taken - admission.working)
        if sandbox is not None:
            kernels = Gauge("genprm_kernels_busy", "Kernels in use.", registry=registry)
            kernels.set_function(lambda: sandbox.busy)
        self._begin_with_zeros()

    def _begin_with_zeros(self) -> None:
        """What first appears as 1 has no increase, so that nobody would see the first failure of a kind."""
        for path in ASKED:
            self.seconds.labels(path)
            for status in ANSWERS:
                self.requests.labels(path, status)
        for kind in ("read", "written"):
            self._tokens.labels(kind)
        for run in RunStatus:
            self._runs.labels(run.value)
        for verdict in (*(each.value for each in Verdict), UNSCORED):
            self._steps.labels(verdict)

    def count(self, row: Verification) -> None:
        """Count what a verification has cost and come to."""
        self._tokens.labels("read").inc(row.usage.prompt_tokens)
        self._tokens.labels("written").inc(row.usage.completion_tokens)
        for step in row.steps:
            if step.asked:
                self._steps.labels(step.verdict.value if step.verdict else UNSCORED).inc()
            for said in step.votes or (step,):
                for segment in said.segments:
                    if segment.run is not None:
                        self._runs.labels(segment.run.status.value).inc()

    def text(self) -> bytes:
        """All of it, in Prometheus' format."""
        return generate_latest(self._registry)
