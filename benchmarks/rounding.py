"""What each rounding buys at the same bytes: KL on text that the calibration has not seen, and seconds.

    benchmarks/rounding.py                          # tiny-qwen3.5: questions and, with ../shared, WikiText-2
    benchmarks/rounding.py MODEL.gguf --rows 16     # any other model: WikiText-2 alone
"""

import argparse
import json
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TINY = ROOT / "models/tiny-qwen3.5"
ROUNDINGS = ("nearest", "search", "gptq")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", default=TINY)
    parser.add_argument("--optiq", type=Path, default=ROOT / "build/dev/optiq/cli/optiq")
    parser.add_argument("--out", type=Path, default=ROOT / "build/rounding")
    parser.add_argument("--bits", type=int, nargs="+", default=[3, 4])
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--calibration", default="mix")
    parser.add_argument("--n-calibration", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rows", type=int, default=64, help="of 512 tokens of WikiText-2")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    return parser.parse_args()


class Bench:
    def __init__(self, arguments):
        self.arguments = arguments
        arguments.out.mkdir(parents=True, exist_ok=True)
        self.texts = {}
        if arguments.model.resolve() == TINY:
            self.texts["questions"] = [TINY / "eval_arithmetic.jsonl", "--limit", "128"]
        wiki = arguments.shared / "data" / "wikitext2-valid.txt"
        if wiki.exists():
            self.texts["wikitext"] = [wiki, "--limit", arguments.rows, "--seq-len", "512"]

    def optiq(self, *words):
        command = [str(w) for w in (self.arguments.optiq, *words, "--progress", "none")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def convert(self, bits, rounding, seed):
        """The directory, and how long it took."""
        a = self.arguments
        out = a.out / f"{a.model.stem}-{bits}-{rounding}-{seed}"
        flags = ["--method", "uniform", "--bits", bits, "--group-size", a.group_size,
                 "--rounding", rounding]
        if rounding != "nearest":
            flags += ["--calibration", a.calibration, "--n-calibration", a.n_calibration,
                      "--seed", seed]
        start = time.monotonic()
        self.optiq("convert", a.model, "-o", out, "--overwrite", *flags)
        return out, time.monotonic() - start

    def kl(self, model, data):
        result = self.arguments.out / "kl.json"
        self.optiq("eval", model, "--task", "kl", "--reference", self.arguments.model,
                   "--data", *data, "--json", result)
        return json.loads(result.read_text())


def main():
    arguments = parse_arguments()
    bench = Bench(arguments)
    print(f"{arguments.model.name}, group {arguments.group_size}, {arguments.n_calibration} chunks "
          f"of '{arguments.calibration}'")
    print("| bits | rounding | seed | bytes | seconds |",
          *(f"KL {text} | of nearest | same top token |" for text in bench.texts))
    for bits in arguments.bits:
        nearest = {}
        for rounding in ROUNDINGS:
            for seed in range(1 if rounding == "nearest" else arguments.seeds):
                out, seconds = bench.convert(bits, rounding, seed)
                size = sum(p.stat().st_size for p in out.glob("model*.safetensors"))
                line = f"| {bits} | {rounding} | {seed} | {size} | {seconds:.0f} |"
                for text, data in bench.texts.items():
                    scores = bench.kl(out, data)
                    mean = scores["mean_kl"]
                    nearest.setdefault(text, mean)
                    line += (f" {mean:.5f} | {mean / nearest[text]:.2f} |"
                             f" {scores['top1_agreement']:.3f} |")
                print(line, flush=True)


if __name__ == "__main__":
    main()
