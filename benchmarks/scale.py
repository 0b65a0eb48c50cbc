"""Where a label job's time goes as it grows: a discrete-event simulation of its parts.

    python benchmarks/scale.py [--solutions 10000000] [--gpu-tokens-per-s 12000]

Rollouts circulate between the stations of a job: the GPUs that write them, the processes that compare answers, and the
one process that plans and records. Each station serves first come, first served; at most `--window` rollouts are under
way per GPU. Measured, here, on 2 cores: what the planning process costs per rollout (`label_throughput.py`), what a
comparison by math-verify costs, how many rollouts a solution takes with adaptive K (`adaptive_rollouts.py`). Not
measured: the tokens that a GPU writes a second, which depend on model and server; give your own. The last line is JSON.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
from dataclasses import dataclass

PLANNING = 1 / 14_000
"""Seconds of the one planning process per rollout: measured, with a policy that answers at once."""
COMPARING = 0.012
"""Seconds of a core for a pair of expressions that math-verify has not seen: measured."""
ROLLOUTS = 118
"""Completions per labelled solution, with those of dropped problems, at the paper's K and adaptive: measured."""
TOKENS = 350
"""Tokens of a rollout: an assumption, about half of a MATH solution."""


@dataclass
class Station:
    """Servers with one queue."""

    name: str
    servers: int
    seconds: float
    """Mean service time of one rollout at one server."""
    busy: float = 0.0


def simulate(stations: list[Station], window: int, seed: int = 0) -> float:
    """The rollouts per second that get through once the queues have settled; ``window`` of them circulate.

    Service times are exponential. The first three rounds of the window are not counted, three more are.
    """
    chance = random.Random(seed)
    free = [[0.0] * station.servers for station in stations]
    arrivals = [(0.0, number, 0) for number in range(window)]
    done, now, warm = 0, 0.0, 0.0
    for station in stations:
        station.busy = 0.0
    while done < 6 * window:
        now, number, place = heapq.heappop(arrivals)
        station = stations[place]
        begin = max(now, heapq.heappop(free[place]))
        service = chance.expovariate(1 / station.seconds)
        if warm:
            station.busy += service
        heapq.heappush(free[place], begin + service)
        done += place == len(stations) - 1
        if done == 3 * window and not warm:
            warm = now
        heapq.heappush(arrivals, (begin + service, number, (place + 1) % len(stations)))
    for station in stations:
        station.busy = min(1.0, station.busy / ((now - warm) * station.servers))
    return 3 * window / (now - warm)


def job(gpus: int, symbolic: float, cores: int, planners: int, tokens_per_s: float, window: int) -> list[Station]:
    """The stations of a job.

    A GPU works on many rollouts at once: it is as many servers as its window, each as much slower.
    """
    return [
        Station("GPUs", gpus * window, TOKENS / tokens_per_s * window),
        Station("comparing", cores, max(symbolic * COMPARING, 1e-6)),
        Station("planning", planners, PLANNING),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--solutions", type=float, default=10_000_000)
    parser.add_argument("--gpu-tokens-per-s", type=float, default=12_000, help="an assumption: give your own")
    parser.add_argument("--window", type=int, default=32, help="rollouts under way per GPU")
    options = parser.parse_args()
    total = options.solutions * ROLLOUTS
    lines = []
    print(f"{'GPUs':>6} {'symbolic':>8} {'planners':>8} {'rollouts/s':>10} {'days':>8} {'GPU days':>9}  busy")
    for symbolic, cores_per_gpu in ((0.0, 0.25), (0.5, 0.25), (0.5, 1)):
        for gpus, planners in ((1, 1), (8, 1), (64, 1), (512, 1), (512, 4), (4096, 4), (4096, 32)):
            cores = max(2, round(gpus * cores_per_gpu))
            stations = job(gpus, symbolic, cores, planners, options.gpu_tokens_per_s, options.window)
            rate = simulate(stations, 2 * gpus * options.window)
            days = total / rate / 86_400
            busy = {station.name: round(station.busy, 2) for station in stations}
            print(
                f"{gpus:6} {symbolic:8.0%} {planners:8} {rate:10.0f} {days:8.1f} {gpus * days:9.0f}  "
                + ", ".join(f"{name} {share:.0%}" for name, share in busy.items()), flush=True,
            )  # fmt: skip
            lines.append({
                "gpus": gpus, "symbolic": symbolic, "cores": cores, "planners": planners, "rollouts_per_s": round(rate),
                "days": round(days, 2), "gpu_days": round(gpus * days), "busy": busy,
            })  # fmt: skip
    print(json.dumps({"solutions": options.solutions, "rollouts": total, "runs": lines}))


if __name__ == "__main__":
    main()
