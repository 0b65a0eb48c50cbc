"""How much faster is a training whose layers are compiled (`--compile`), and what does compiling cost?

    python -m benchmarks.train_speed DATA [--few 16] [--many 48]

DATA holds training records. The embedded model is trained on few of them and on many, as it is and compiled, each time
in a process of its own, for which nothing is compiled yet; what the further ones take is the speed, and what is left of
the first time is the start. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from genprm.models.embedded import EMBEDDED

RECIPE = ("--epochs", "1", "--batch", "8", "--rank", "16", "--alpha", "16", "--max-length", "1024", "--mixed")


def main() -> None:
    """Train four times, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--few", type=int, default=16, help="conversations")
    parser.add_argument("--many", type=int, default=48, help="conversations")
    chosen = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    for name, options in (("as it is", ()), ("compiled", ("--compile",))):
        few, many = (trained(chosen.data, count, *options) for count in (chosen.few, chosen.many))
        speed = (many["tokens"] - few["tokens"]) / (many["seconds"] - few["seconds"])
        found[name] = {"tokens_per_s": round(speed, 1), "start_s": round(few["seconds"] - few["tokens"] / speed, 1)}
        print(f"{name}: {found[name]}", flush=True)
    ratio = found["compiled"]["tokens_per_s"] / found["as it is"]["tokens_per_s"]
    print(json.dumps({**found, "ratio": round(ratio, 2)}))


def trained(data: str, count: int, *options: str) -> dict[str, float]:
    """What a training of so many conversations says of itself."""
    genprm = Path(sys.executable).with_name("genprm")
    with tempfile.TemporaryDirectory() as folder:
        command = (genprm, "train", "sft", data, "-o", f"{folder}/adapter", "--base", EMBEDDED, *RECIPE, *options)
        environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": f"{folder}/compiled"}
        done = subprocess.run(
            [*map(str, command), "--limit", str(count)], env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
    figures = [line.split() for line in done.stdout.splitlines()]
    return {words[0]: float(words[1]) for words in figures if len(words) == 2 and words[0] in ("tokens", "seconds")}


if __name__ == "__main__":
    main()
