#!/usr/bin/env python3
"""What auto's budget buys: KL and answers at one size, by forwards of the calibration text.

For every size, seed and budget: how many moves between whole plans were kept, the KL of the whole
model on the calibration text before and after them, and KL on text that the calibration has not
seen, beside uniform widths of no fewer bytes.

  benchmarks/measure_budget.py [MODEL] --optiq build/release/optiq/cli/optiq

MODEL: tiny-qwen3.5 by default (questions and, with ../shared, WikiText-2); any other: WikiText-2.
"""

import argparse
import json
import time
from pathlib import Path

from _optiq_runs import QUESTIONS, ROOT, TINY, run_optiq, unseen_texts


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", default=TINY)
    parser.add_argument("--optiq", type=Path, default=ROOT / "build/release/optiq/cli/optiq")
    parser.add_argument("--out", type=Path, default=ROOT / "build/measure_budget")
    parser.add_argument("--file-bpw", type=float, nargs="+", default=[3.5, 4.5])
    parser.add_argument("--budgets", type=int, nargs="+", default=[0, 5, 20, 60])
    parser.add_argument("--calibration", default="mix")
    parser.add_argument("--n-calibration", type=int, default=24)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", type=int, default=64, help="of 512 tokens of WikiText-2")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    return parser.parse_args()


class Bench:
    def __init__(self, arguments):
        self.arguments = arguments
        arguments.out.mkdir(parents=True, exist_ok=True)
        self.texts = unseen_texts(arguments.model, arguments.shared, arguments.rows)

    def optiq(self, *words):
        run_optiq(self.arguments.optiq, *words)

    def convert(self, *flags):
        """The directory, what was said of it, and the seconds."""
        out = self.arguments.out / "model"
        result = self.arguments.out / "result.json"
        start = time.monotonic()
        self.optiq("convert", self.arguments.model, "-o", out, "--overwrite", "--json", result,
                   *flags)
        return out, json.loads(result.read_text()), time.monotonic() - start

    def measure(self, model):
        found = []
        for name, data in self.texts.items():
            result = self.arguments.out / "kl.json"
            self.optiq("eval", model, "--task", "kl", "--reference", self.arguments.model,
                       "--data", *data, "--json", result)
            kl = json.loads(result.read_text())
            found.append(f"{name.lower()} {kl['mean_kl']:.5f} ± {kl['stderr']:.5f}")
        if "questions" in self.texts:
            result = self.arguments.out / "answers.json"
            self.optiq("eval", model, "--task", "exact-match", "--data",
                       QUESTIONS, "--json", result)
            found.append(f"right {json.loads(result.read_text())['accuracy']:.3f}")
        return ", ".join(found)


def main():
    arguments = parse_arguments()
    bench = Bench(arguments)
    for size in arguments.file_bpw:
        bits = int(size)
        model, result, _ = bench.convert("--method", "uniform", "--bits", bits)
        print(f"uniform {bits}: {result['file_bytes']} bytes, {bench.measure(model)}", flush=True)
        for budget in arguments.budgets:
            for seed in arguments.seeds:
                model, result, seconds = bench.convert(
                    "--target-file-bpw", size, "--candidate-bits", "2,3,4,5,6,8", "--protect",
                    "off", "--calibration", arguments.calibration, "--n-calibration",
                    arguments.n_calibration, "--seed", seed, "--measure-budget", budget)
                moves = result.get("exchange", {"kept": 0, "tried": 0,
                                                "kl_before": result["measured_kl"]})
                print(f"  {size} bpw, {result['file_bytes']} bytes, budget {budget}, seed {seed}: "
                      f"{moves['kept']} of {moves['tried']} moves kept, calibration "
                      f"{moves['kl_before']:.5f} -> {result['measured_kl']:.5f}; "
                      f"{bench.measure(model)}; {seconds:.0f} s", flush=True)


main()
