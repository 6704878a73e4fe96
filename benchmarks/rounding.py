#!/usr/bin/env python3
"""What each step of a conversion buys at the same bytes: KL on text that the calibration has not seen, right answers,
and seconds.

    benchmarks/rounding.py                             # tiny-qwen3.5: questions and, with ../shared, WikiText-2
    benchmarks/rounding.py MODEL.gguf --rows 16        # any other model: WikiText-2 alone
    benchmarks/rounding.py --only optiq,gptq,tuned     # rows whose name has all of these words
"""

import argparse
import json
import statistics
import time
from pathlib import Path

from _optiq_runs import QUESTIONS, ROOT, TINY, run_optiq, unseen_texts

ALLOCATION = ["--candidate-bits", "2,3,4,5,6,8", "--group-size", "32,64,128", "--protect", "off"]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", default=TINY)
    parser.add_argument("--optiq", type=Path, default=ROOT / "build/dev/optiq/cli/optiq")
    parser.add_argument("--out", type=Path, default=ROOT / "build/rounding")
    parser.add_argument("--file-bpw", type=float, nargs="+", default=[3.5, 4.5],
                        help="of allocations; beside each the uniform width of its whole bits")
    parser.add_argument("--calibration", nargs="+", default=["mix"])
    parser.add_argument("--n-calibration", type=int, default=24)
    parser.add_argument("--tune-steps", type=int, nargs="+", default=[60])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", default="", help="words of a row's name, with commas")
    parser.add_argument("--rows", type=int, default=32, help="of 512 tokens of WikiText-2")
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    return parser.parse_args()


class Bench:
    def __init__(self, arguments):
        self.arguments = arguments
        arguments.out.mkdir(parents=True, exist_ok=True)
        self.texts = unseen_texts(arguments.model, arguments.shared, arguments.rows)
        self.questions = QUESTIONS if "questions" in self.texts else None

    def optiq(self, *words):
        run_optiq(self.arguments.optiq, *words)

    def convert(self, flags):
        """The directory, and how long it took."""
        out = self.arguments.out / self.arguments.model.stem
        start = time.monotonic()
        self.optiq("convert", self.arguments.model, "-o", out, "--overwrite", *flags)
        return out, time.monotonic() - start

    def evaluate(self, model, task, *flags):
        result = self.arguments.out / "eval.json"
        self.optiq("eval", model, "--task", task, *flags, "--json", result)
        return json.loads(result.read_text())

    def measure(self, flags):
        """What a conversion's table row says, as a list of numbers."""
        out, seconds = self.convert(flags)
        found = [sum(p.stat().st_size for p in out.glob("model*.safetensors")), seconds]
        for data in self.texts.values():
            found.append(self.evaluate(out, "kl", "--reference", self.arguments.model,
                                       "--data", *data)["mean_kl"])
        if self.questions:
            found.append(self.evaluate(out, "exact-match", "--data", self.questions, "--limit",
                                       self.arguments.questions)["accuracy"])
        return found


def conversions(arguments, file_bpw):
    """(name, flags without a text, whether a text is looked at) of every row."""
    plans = {f"uniform {int(file_bpw)}": ["--method", "uniform", "--bits", int(file_bpw)],
             f"optiq {file_bpw:g}": ["--target-file-bpw", file_bpw, *ALLOCATION]}
    for plan, flags in plans.items():
        for rounding in ("nearest", "search", "gptq"):
            for steps in (0, *arguments.tune_steps):
                name = f"{plan}, {rounding}" + (f", tuned {steps}" if steps else "")
                looks = rounding != "nearest" or steps or plan.startswith("optiq")
                rounded = [*flags, "--rounding", rounding]
                yield name, [*rounded, "--tune-steps", steps] if steps else rounded, looks


def row_of(bench, name, flags, looks):
    """The row: means over seeds, with the standard deviation where there are several."""
    arguments = bench.arguments
    for text in arguments.calibration if looks else [None]:
        runs = []
        for seed in arguments.seeds if looks else [0]:
            calibrated = ["--calibration", text, "--n-calibration", arguments.n_calibration,
                          "--seed", seed] if looks else []
            runs.append(bench.measure([*flags, *calibrated]))
        cells = []
        forms = ["{:.0f}", "{:.0f}", *["{:.5f}"] * len(bench.texts), "{:.3f}"]
        for values, form in zip(zip(*runs), forms):
            cell = form.format(statistics.mean(values))
            if len(values) > 1 and form.startswith("{:."):
                cell += " ± " + form.format(statistics.stdev(values))
            cells.append(cell)
        yield f"| {name} | {text or ''} | " + " | ".join(cells) + " |"


def main():
    arguments = parse_arguments()
    bench = Bench(arguments)
    columns = ["weights", "calibration", "bytes", "seconds", *(f"KL {t}" for t in bench.texts)]
    if bench.questions:
        columns.append("accuracy")
    print("|", " | ".join(columns), "|")
    print("|" + "---|" * len(columns), flush=True)
    words = [word.strip() for word in arguments.only.split(",") if word.strip()]
    for file_bpw in arguments.file_bpw:
        for name, flags, looks in conversions(arguments, file_bpw):
            if all(word in name for word in words):
                for row in row_of(bench, name, flags, looks):
                    print(row, flush=True)


if __name__ == "__main__":
    main()
