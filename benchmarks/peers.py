#!/usr/bin/env python3
"""OptIQ beside llama.cpp: the same model, machine and threads, in turn.

Makes Q4_0 and Q8_0 files of SmolLM2 135M with llama-quantize and uniform 4- and
8-bit directories of it with `optiq convert`, then measures decoding and prefill
in rounds of one run each, so that both meet the machine in the same state; with
--busy both at 4 bits also beside a process that keeps a core busy. Prints
Markdown tables of medians, spreads and ratios.

  benchmarks/peers.py --optiq build/release/optiq/cli/optiq --out DIR

Needs `scripts/setup --developer --peers`.
"""

import argparse
import json
import os
import statistics
import subprocess
from pathlib import Path

from _neighbour import busy_neighbour

ROOT = Path(__file__).parent.parent
CACHE = Path(os.environ.get("OPTIQ_CACHE_DIR", Path.home() / ".cache" / "optiq"))
MODEL = CACHE / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
LLAMA_CPP = CACHE / "build" / "llama_cpp_python-0.3.36" / "bin"


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--optiq", type=Path, default=ROOT / "build/release/optiq/cli/optiq")
    parser.add_argument("--llama-cpp", type=Path, default=LLAMA_CPP)
    parser.add_argument("--model", type=Path, default=MODEL, help="a GGUF file")
    parser.add_argument("--out", type=Path, default=ROOT / "build/peers")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--gen", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--busy", action="store_true")
    return parser.parse_args()


def run(*words):
    command = [str(word) for word in words]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{result.stdout}{result.stderr}")
    return result.stdout


class Peers:
    def __init__(self, arguments):
        self.arguments = arguments
        self.out = arguments.out
        self.out.mkdir(parents=True, exist_ok=True)

    def quantize_theirs(self, name, kind, *flags):
        target = self.out / f"{name}.gguf"
        if not target.exists():
            tool = self.arguments.llama_cpp / "llama-quantize"
            run(tool, "--allow-requantize", *flags, self.arguments.model, target, kind)
        return target

    def quantize_ours(self, bits):
        target = self.out / f"optiq-{bits}"
        if not target.exists():
            flags = ["--method", "uniform", "--bits", bits, "--progress", "none"]
            run(self.arguments.optiq, "convert", self.arguments.model, "-o", target, *flags)
        return target

    def measure_theirs(self, model):
        a = self.arguments
        flags = ["-p", a.prompt, "-n", a.gen, "-t", a.threads, "-r", 1, "-o", "json"]
        tests = json.loads(run(a.llama_cpp / "llama-bench", "-m", model, *flags))
        prefill = next(t["avg_ts"] for t in tests if t["n_prompt"])
        decode = next(t["avg_ts"] for t in tests if t["n_gen"])
        return {"prefill": prefill, "decode": decode, "bytes": tests[0]["model_size"]}

    def measure_ours(self, model, batch=1, compute="fast"):
        a = self.arguments
        result = self.out / "bench.json"
        flags = ["--prompt", a.prompt, "--gen", a.gen, "--threads", a.threads]
        flags += ["--repeats", 1, "--batch", batch, "--compute", compute, "--json", result]
        run(a.optiq, "bench", model, *flags)
        bench = json.loads(result.read_text())
        return {
            "prefill": bench["prefill_tokens_per_second"],
            "decode": bench["decode_tokens_per_second"],
            "bytes": sum(f.stat().st_size for f in model.glob("model*.safetensors")),
            "bytes_per_token": bench["bytes_per_token"],
            "bandwidth": bench["read_bandwidth"],
        }


def spread(samples, key):
    values = [sample[key] for sample in samples]
    return f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})"


def median(samples, key):
    return statistics.median(sample[key] for sample in samples)


def paired_ratio(ours, theirs, key):
    """Median, least and largest of the rounds' ratios."""
    ratios = [o[key] / t[key] for o, t in zip(ours, theirs)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def print_table(runs, bandwidth):
    print("| | MB | prefill, tokens/s | decode, tokens/s | decode, of read bandwidth |")
    print("|---|---|---|---|---|")
    for name, samples in runs.items():
        # Of theirs it is known only that a step reads the weights once.
        read = median(samples, "bytes_per_token" if "bandwidth" in samples[0] else "bytes")
        fraction = read * median(samples, "decode") / bandwidth
        print(
            f"| {name} | {median(samples, 'bytes') / 1e6:.1f} | {spread(samples, 'prefill')} "
            f"| {spread(samples, 'decode')} | {fraction:.2f} |"
        )


def print_ratios(runs):
    pairs = [
        ("OptIQ 4 bits", "llama.cpp Q4_0"),
        ("OptIQ 4 bits", "llama.cpp Q4_0 --pure"),
        ("OptIQ 4 bits, int8", "llama.cpp Q4_0"),
        ("OptIQ 8 bits", "llama.cpp Q8_0"),
    ]
    print("\n| ratio, round by round | prefill | decode |")
    print("|---|---|---|")
    for ours, theirs in pairs:
        prefill, decode = (paired_ratio(runs[ours], runs[theirs], k) for k in ("prefill", "decode"))
        print(f"| {ours} / {theirs} | {prefill} | {decode} |")
    for bits in (4, 8):
        ours, batch = f"OptIQ {bits} bits", f"OptIQ {bits} bits, batch 8"
        print(f"| {batch} / batch 1 | | {paired_ratio(runs[batch], runs[ours], 'decode')} |")


def print_what_is_left(quiet, busy):
    print("\n| of the quiet speed, what is left beside a busy neighbour | prefill | decode |")
    print("|---|---|---|")
    for name in busy:
        prefill, decode = (paired_ratio(busy[name], quiet[name], k) for k in ("prefill", "decode"))
        print(f"| {name} | {prefill} | {decode} |")


def main():
    arguments = parse_arguments()
    peers = Peers(arguments)
    q4, q8 = peers.quantize_theirs("q4_0", "Q4_0"), peers.quantize_theirs("q8_0", "Q8_0")
    pure = peers.quantize_theirs("q4_0_pure", "Q4_0", "--pure")
    ours4, ours8 = peers.quantize_ours(4), peers.quantize_ours(8)
    plan = {
        "OptIQ 4 bits": lambda: peers.measure_ours(ours4),
        "OptIQ 4 bits, int8": lambda: peers.measure_ours(ours4, compute="int8"),
        "llama.cpp Q4_0": lambda: peers.measure_theirs(q4),
        "llama.cpp Q4_0 --pure": lambda: peers.measure_theirs(pure),
        "OptIQ 8 bits": lambda: peers.measure_ours(ours8),
        "llama.cpp Q8_0": lambda: peers.measure_theirs(q8),
        "OptIQ 4 bits, batch 8": lambda: peers.measure_ours(ours4, 8),
        "OptIQ 8 bits, batch 8": lambda: peers.measure_ours(ours8, 8),
    }
    runs = {name: [] for name in plan}
    busy = {name: [] for name in ("OptIQ 4 bits", "llama.cpp Q4_0") if arguments.busy}
    for _ in range(arguments.rounds):
        for name, measure in plan.items():
            runs[name].append(measure())
            if name in busy:
                with busy_neighbour():
                    busy[name].append(measure())
    ours = [s for samples in runs.values() for s in samples if "bandwidth" in s]
    bandwidth = median(ours, "bandwidth")
    print(
        f"{arguments.model.name}, {arguments.threads} threads, medians of {arguments.rounds} "
        f"rounds (least to largest), read bandwidth {bandwidth / 1e9:.1f} GB/s "
        f"({min(s['bandwidth'] for s in ours) / 1e9:.1f} to "
        f"{max(s['bandwidth'] for s in ours) / 1e9:.1f})\n"
    )
    print_table(runs, bandwidth)
    print_ratios(runs)
    if busy:
        print_what_is_left(runs, busy)


if __name__ == "__main__":
    main()
