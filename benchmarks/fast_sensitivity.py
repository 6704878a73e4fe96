#!/usr/bin/env python3
"""How well and how fast `convert --sensitivity fast` estimates.

Estimates and measures the same chunks, and prints for every width Spearman's
correlation over the large matrices, the ratio of estimate and measurement, and
the CPU seconds of both beside those of a forward of the same tokens.

  benchmarks/fast_sensitivity.py [MODEL ...] --optiq build/release/optiq/cli/optiq

MODEL: tiny-qwen3.5 by default; a directory or a .gguf file. --calibration as in
convert: mix, self, or a file. Needs numpy and ../shared (the forward's text).
"""

import argparse
import json
import os
import resource
import subprocess
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
LARGE = 8192  # weights; smaller matrices are noise to both


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", default=[ROOT / "models" / "tiny-qwen3.5"])
    parser.add_argument("--optiq", default=ROOT / "build/release/optiq/cli/optiq")
    parser.add_argument("--candidate-bits", default="3,4,8")
    parser.add_argument("--n-calibration", type=int, default=8)
    parser.add_argument("--calibration", default="mix")
    parser.add_argument("--rounding", default="nearest",
                        help="what is estimated and measured; search and gptq take time of their own")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    return parser.parse_args()


class Bench:
    def __init__(self, arguments, folder):
        self.arguments = arguments
        self.folder = folder

    def cpu_seconds(self, *words, cache="cache"):
        """Of one run of optiq."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        environment = {**os.environ, "OPTIQ_CACHE_DIR": str(self.folder / cache)}
        subprocess.run([str(w) for w in (self.arguments.optiq, *words)], check=True,
                       env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def convert(self, model, form, seed):
        """Layers of sensitivity.json, and the seconds of making them."""
        flags = ["convert", model, "--sensitivity", form, "--protect", "off", "--overwrite",
                 "--candidate-bits", self.arguments.candidate_bits,
                 "--target-bpw", self.arguments.candidate_bits.split(",")[-1],
                 "--n-calibration", self.arguments.n_calibration,
                 "--calibration", self.arguments.calibration, "--seed", seed,
                 "--rounding", self.arguments.rounding,
                 "-o", self.folder / form]
        seconds = self.cpu_seconds(*flags)
        seconds -= self.cpu_seconds(*flags)  # all but the making
        path = self.folder / form / "optiq" / "sensitivity.json"
        return json.loads(path.read_text())["layers"], seconds

    def forward_seconds(self, model):
        """Of as many tokens, by the difference of two runs."""
        text = self.arguments.shared / "data" / "wikitext2-valid.txt"
        n = self.arguments.n_calibration
        flags = ["eval", model, "--task", "ppl", "--data", text, "--seq-len", 512, "--compute",
                 "exact", "--limit"]
        return self.cpu_seconds(*flags, 2 * n) - self.cpu_seconds(*flags, n)

    def compare(self, model, seed):
        fast, fast_seconds = self.convert(model, "fast", seed)
        exact, exact_seconds = self.convert(model, "exact", seed)
        for bits in self.arguments.candidate_bits.split(","):
            pairs = np.array([
                (a["sensitivities"][bits], b["sensitivities"][bits])
                for a, b in zip(fast, exact)
                if a["param_count"] >= LARGE and "embed" not in a["layer_name"]])
            ranks = np.argsort(np.argsort(pairs, axis=0), axis=0)
            spearman = np.corrcoef(ranks.T)[0, 1]
            ratio = pairs[:, 0] / pairs[:, 1]
            top = len(pairs) // 4
            shared = len(set(np.argsort(-pairs[:, 0])[:top]) & set(np.argsort(-pairs[:, 1])[:top]))
            print(f"  seed {seed}, {bits} bits, {len(pairs)} matrices: Spearman {spearman:.3f}, "
                  f"top {top} shared {shared}, fast / exact {np.exp(np.log(ratio).mean()):.3f} "
                  f"({ratio.min():.2f} to {ratio.max():.2f}), "
                  f"whole {pairs[:, 0].sum() / pairs[:, 1].sum():.3f}", flush=True)
        forward = self.forward_seconds(model)
        print(f"  fast {fast_seconds:.1f} CPU s = {fast_seconds / forward:.2f} forwards, "
              f"exact {exact_seconds:.1f} = {exact_seconds / forward:.0f}, "
              f"a forward {forward:.2f}", flush=True)


def main():
    arguments = parse_arguments()
    for model in arguments.models:
        print(f"{Path(model).name}, {arguments.n_calibration} chunks of {arguments.calibration}")
        for seed in range(arguments.seeds):
            with tempfile.TemporaryDirectory() as folder:
                Bench(arguments, Path(folder)).compare(model, seed)


main()
