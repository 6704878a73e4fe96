#!/usr/bin/env python3
"""Two builds of optiq beside each other: the same bits, and the same speed?

Measures prefill, decode and decode of a batch of 8 in rounds of one run each, in
turn, so that both meet the machine in the same state, and compares the best of
each; perplexity of a text, to the last digit, says whether the logits are equal.

  benchmarks/before_after.py --before OLD/optiq --after build/dev/optiq/cli/optiq MODEL...

With --busy beside a process that keeps a core busy, and by medians: the best run
is one that was not disturbed.

An executable finds its library by its run path; `--before-library DIR` names the
folder of an old one that was moved.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path

from _neighbour import busy_neighbour

CASES = {
    "prefill 512": ("prefill", ["--prompt", "512", "--gen", "1"]),
    "decode": ("decode", ["--prompt", "16", "--gen", "64"]),
    "decode, batch 8": ("decode", ["--prompt", "16", "--gen", "32", "--batch", "8"]),
}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--before-library", type=Path)
    parser.add_argument("--after", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("models", nargs="+")
    return parser.parse_args()


class Build:
    def __init__(self, executable, library=None):
        self.executable = executable
        self.environment = dict(os.environ)
        if library is not None:
            self.environment["LD_LIBRARY_PATH"] = str(library)

    def run(self, *words):
        """The JSON that the command writes."""
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "result.json"
            command = [str(word) for word in (self.executable, *words, "--json", result)]
            done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
            if done.returncode != 0:
                raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
            return json.loads(result.read_text())


def equal_bits(builds, model):
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        text.write_text(" ".join(f"{i} and {i * i} are {'odd' if i % 2 else 'even'}." for i in range(150)))
        for compute in ("int8", "fast", "exact"):
            words = ("eval", model, "--task", "ppl", "--data", text, "--seq-len", 128, "--compute", compute)
            found = [build.run(*words) for build in builds]
            if found[0]["ppl"] != found[1]["ppl"] or found[0]["mean_nll"] != found[1]["mean_nll"]:
                return False
    return True


def speeds(builds, model, arguments, case):
    kind, flags = CASES[case]
    found = [[], []]
    with busy_neighbour() if arguments.busy else contextlib.nullcontext():
        for _ in range(arguments.rounds):
            for build, values in zip(builds, found):
                bench = build.run("bench", model, "--repeats", 3, *flags)
                values.append(bench[f"{kind}_tokens_per_second"] if arguments.busy else max(bench[f"{kind}_spread"]))
    return [statistics.median(values) if arguments.busy else max(values) for values in found]


def main():
    arguments = parse_arguments()
    builds = [Build(arguments.before, arguments.before_library), Build(arguments.after)]
    print("| model | case | before, tokens/s | after | ratio |\n|---|---|---|---|---|")
    for model in arguments.models:
        name = Path(model).name
        if not equal_bits(builds, model):
            raise SystemExit(f"{name}: the logits differ, expected equal bits in every mode")
        for case in CASES:
            before, after = speeds(builds, model, arguments, case)
            print(f"| {name} | {case} | {before:.1f} | {after:.1f} | {after / before:.3f} |", flush=True)
    print("logits: equal bits in int8, fast and exact")


if __name__ == "__main__":
    main()
