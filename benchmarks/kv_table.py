#!/usr/bin/env python3
"""What a quantized K/V cache costs tiny-qwen3.5 in right answers.

Weights stay bf16; K and V are quantized alone, both sides at the same width.
Turbo is the mean over several seeds of the rotation, with its standard
deviation. The recall sets are those of ../shared (their filler is WikiText).

  benchmarks/kv_table.py --optiq build/release/optiq/cli/optiq
"""

import argparse
import json
import statistics
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "models" / "tiny-qwen3.5"


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--optiq", type=Path, default=ROOT / "build/release/optiq/cli/optiq")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--bits", default="4,3,2")
    parser.add_argument("--rotations", default="orthogonal,hadamard")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--compute", default="exact")
    return parser.parse_args()


def accuracy(arguments, data, *flags):
    with tempfile.NamedTemporaryFile(suffix=".json") as result:
        command = [arguments.optiq, "eval", MODEL, "--task", "exact-match", "--data", data]
        command += ["--compute", arguments.compute, "--progress", "none"]
        command += ["--json", result.name, *flags]
        subprocess.run([str(w) for w in command], check=True, stdout=subprocess.DEVNULL)
        return json.load(open(result.name))["accuracy"]


def turbo_cell(arguments, data, bits, rotation):
    flags = ["--kv-bits", bits, "--kv-method", "turbo", "--kv-rotation", rotation]
    values = [
        accuracy(arguments, data, *flags, "--kv-seed", seed) for seed in range(arguments.seeds)
    ]
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def main():
    arguments = parse_arguments()
    recall = arguments.shared / "models" / "tiny-qwen3.5"
    sets = {
        "arithmetic": MODEL / "eval_arithmetic.jsonl",
        "recall": recall / "eval_recall.jsonl",
        "recall long": recall / "eval_recall_long.jsonl",
    }
    print(f"| K/V cache, {arguments.compute} arithmetic | " + " | ".join(sets) + " |")
    print("|---" * (len(sets) + 1) + "|")
    rows = [("dense", lambda data: f"{accuracy(arguments, data):.3f}")]
    for bits in arguments.bits.split(","):
        rows.append(
            (
                f"affine {bits}",
                lambda data, bits=bits: f"{accuracy(arguments, data, '--kv-bits', bits):.3f}",
            )
        )
    for rotation in arguments.rotations.split(","):
        for bits in arguments.bits.split(","):
            rows.append(
                (
                    f"turbo {bits}, {rotation}, {arguments.seeds} seeds",
                    lambda data, b=bits, r=rotation: turbo_cell(arguments, data, b, r),
                )
            )
    for name, cell in rows:
        print(f"| {name} | " + " | ".join(cell(data) for data in sets.values()) + " |", flush=True)


if __name__ == "__main__":
    main()
