"""Prints the table that scripts/demo ends with.

demo_table.py RESULTS NAME=MODEL ... reads RESULTS/NAME.{accuracy,kl,bench}.json
as `optiq eval` and `optiq bench` write them, and the sizes of MODEL's weights.
"""

import json
import pathlib
import sys

HEADER = ("weights", "bytes", "KL, nats", "accuracy", "decode, tokens/s")


def load(results, name, kind):
    return json.loads((results / f"{name}.{kind}.json").read_text())


def weight_bytes(model):
    sizes = [path.stat().st_size for path in model.glob("model*.safetensors")]
    if not sizes:
        sys.exit(f"{model}: no model*.safetensors")
    return sum(sizes)


def row(results, name, model):
    accuracy = load(results, name, "accuracy")
    kl = load(results, name, "kl")
    bench = load(results, name, "bench")
    return (
        name,
        f"{weight_bytes(model):,}",
        f"{kl['mean_row_kl']:.5f}",
        f"{accuracy['accuracy']:.3f} ± {accuracy['stderr']:.3f}",
        f"{bench['decode_tokens_per_second']:,.0f}",
    )


def main():
    results = pathlib.Path(sys.argv[1])
    rows = [HEADER]
    for argument in sys.argv[2:]:
        name, _, model = argument.partition("=")
        rows.append(row(results, name, pathlib.Path(model)))
    widths = [max(len(cells[i]) for cells in rows) for i in range(len(HEADER))]
    rows.insert(1, tuple("-" * width for width in widths))
    for cells in rows:
        padded = [cells[0].ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:])]
        print("| " + " | ".join(padded) + " |")


if __name__ == "__main__":
    main()
