"""How much faster is a training whose layers are compiled (`--compile`), and what does compiling cost?

    python -m benchmarks.train_speed DATA [--few 16] [--many 48]

DATA holds training records. The embedded model is trained on few of them and on many, as it is and compiled; what the
further ones take is the speed, and what is left of the first time is the start. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from genprm.models.embedded import EMBEDDED
from genprm.train.lora import train
from genprm.train.options import Machine, TrainOptions
from genprm.train.recipes import Recipe

RECIPE = Recipe(epochs=1, batch=8, rank=16, alpha=16)


def main() -> None:
    """Train four times, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--few", type=int, default=16, help="conversations")
    parser.add_argument("--many", type=int, default=48, help="conversations")
    chosen = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    for name, machine in (("as it is", Machine()), ("compiled", Machine(compile=True))):
        tokens, seconds = [], []
        for count in (chosen.few, chosen.many):
            options = TrainOptions(base=EMBEDDED, recipe=RECIPE, mixed=True, max_length=1024, limit=count)
            with tempfile.TemporaryDirectory() as folder:
                measured = train(chosen.data, Path(folder) / "adapter", options, machine)
            tokens.append(measured.tokens)
            seconds.append(measured.seconds)
        speed = (tokens[1] - tokens[0]) / (seconds[1] - seconds[0])
        found[name] = {"tokens_per_s": round(speed, 1), "start_s": round(seconds[0] - tokens[0] / speed, 1)}
        print(f"{name}: {found[name]}", flush=True)
    ratio = found["compiled"]["tokens_per_s"] / found["as it is"]["tokens_per_s"]
    print(json.dumps({**found, "ratio": round(ratio, 2)}))


if __name__ == "__main__":
    main()
