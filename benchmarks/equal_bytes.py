#!/usr/bin/env python3
"""What measured widths alone buy at equal bytes (rounding to nearest), on tiny-qwen3.5.

For the bytes of the uniform 3-bit file, of the uniform 4-bit file and of
mlx-lm's recipe mixed_3_6: the KL of `optiq`, `static` and the file itself, on
the arithmetic questions and on WikiText-2 (../shared/data), for several
calibration seeds (by default of the model's own text: the built-in mix is
foreign to a model of 8 M weights). Differences are paired row by row; their standard errors
stand beside them.

  benchmarks/equal_bytes.py --optiq build/release/optiq/cli/optiq --out DIR

Needs mlx-lm (scripts/setup --developer) and ../shared.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from _optiq_runs import run_optiq

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "models" / "tiny-qwen3.5"
BUDGETS = {
    "uniform-3": "2,3,4,8",
    "uniform-4": "3,4,5,6,8",
    "mixed_3_6": "2,3,4,5,6,8",
}
ALL_BITS = "2,3,4,5,6,8"


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--optiq", default=ROOT / "build/release/optiq/cli/optiq")
    parser.add_argument("--out", type=Path, default=ROOT / "build/equal_bytes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--n-calibration", type=int, default=24)
    parser.add_argument("--calibration", default="self")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    return parser.parse_args()


class Bench:
    def __init__(self, arguments):
        self.arguments = arguments
        self.out = arguments.out
        self.out.mkdir(parents=True, exist_ok=True)
        wiki = arguments.shared / "data" / "wikitext2-valid.txt"
        self.texts = {
            "arithmetic": [MODEL / "eval_arithmetic.jsonl", "--limit", "128"],
            "wikitext": [wiki, "--limit", "64", "--seq-len", "512"],
        }

    def optiq(self, *words):
        run_optiq(self.arguments.optiq, *words)

    def convert(self, name, *flags):
        out = self.out / name
        self.optiq("convert", MODEL, "-o", out, "--overwrite", *flags)
        return out

    def kl(self, model):
        """Mean KL of each row, for each text."""
        rows = {}
        for text, data in self.texts.items():
            result = self.out / "kl.json"
            self.optiq("eval", model, "--task", "kl", "--reference", MODEL,
                       "--data", *data, "--json", result)
            rows[text] = np.array(json.loads(result.read_text())["row_kl"])
        return rows

    def measured(self, name, method, size, bits, seed):
        flags = ["--method", method, "--target-size", size, "--candidate-bits", bits,
                 "--protect", "off"]
        if method == "optiq":
            flags += ["--rounding", "nearest", "--seed", seed, "--n-calibration",
                      self.arguments.n_calibration, "--calibration", self.arguments.calibration]
        return self.convert(name, *flags)

    def measure_all_widths(self, seed):
        """One measurement per seed; the conversions below take it from cache."""
        self.measured(f"all-{seed}", "optiq", "8MB", ALL_BITS, seed)


def mlx_recipe(out):
    from mlx_lm import convert

    if not out.exists():
        convert(str(MODEL), str(out), quantize=True, quant_predicate="mixed_3_6")
    return out


def weight_bytes(model):
    return sum(p.stat().st_size for p in model.glob("model*.safetensors"))


def difference(a, b):
    """Mean of a - b and its standard error, paired by row."""
    d = a - b
    return d.mean(), d.std(ddof=1) / np.sqrt(len(d))


def print_budget(bench, budget, base, seeds):
    size = weight_bytes(base)
    bits = BUDGETS[budget]
    base_kl = bench.kl(base)
    static = bench.measured(f"{budget}-static", "static", size, bits, 0)
    static_kl = bench.kl(static)
    optiq_kl = []
    for seed in range(seeds):
        model = bench.measured(f"{budget}-optiq-{seed}", "optiq", size, bits, seed)
        assert weight_bytes(model) <= size
        optiq_kl.append(bench.kl(model))
    print(f"\n{budget}: {size} bytes; candidates {bits}; static {weight_bytes(static)} bytes")
    failed = []
    for text in bench.texts:
        print(f"  {text}: KL {budget} {base_kl[text].mean():.5f}, static {static_kl[text].mean():.5f}")
        for seed, rows in enumerate(optiq_kl):
            line = f"    optiq, seed {seed}: {rows[text].mean():.5f}"
            for name, other in [(budget, base_kl), ("static", static_kl)]:
                mean, error = difference(rows[text], other[text])
                line += f"; minus {name} {mean:+.5f} +- {error:.5f}"
                if mean >= 0:
                    failed.append(f"{budget}, {text}, seed {seed}: not below {name}")
            print(line)
    return failed


def main():
    arguments = parse_arguments()
    bench = Bench(arguments)
    for seed in range(arguments.seeds):
        bench.measure_all_widths(seed)
    bases = {
        "uniform-3": bench.convert("uniform-3", "--method", "uniform", "--bits", "3"),
        "uniform-4": bench.convert("uniform-4", "--method", "uniform", "--bits", "4"),
        "mixed_3_6": mlx_recipe(bench.out / "mixed_3_6"),
    }
    failed = []
    for budget, base in bases.items():
        failed += print_budget(bench, budget, base, arguments.seeds)
        sys.stdout.flush()
    print("\n" + ("optiq is below all of them" if not failed else "\n".join(failed)))


if __name__ == "__main__":
    main()
