"""Prints the tables that scripts/demo ends with.

demo_table.py RESULTS NAME=MODEL ... --kv NAME ... reads, for the first table,
RESULTS/NAME.{accuracy,kl,bench}.json as `optiq eval` and `optiq bench` write
them, and the sizes of MODEL's weights; for that of K/V caches,
RESULTS/NAME.{accuracy,kl,kv}.json, the last as `optiq kv-cache` writes it. The
first model of all is the one whose cache they are.
"""

import argparse
import json
import pathlib
import sys

HEADER = ("weights", "bytes", "KL, nats", "accuracy", "decode, tokens/s")
KV_HEADER = ("K/V cache", "bytes per token", "bits per value", "KL, nats", "accuracy")


def load(results, name, kind):
    return json.loads((results / f"{name}.{kind}.json").read_text())


def weight_bytes(model):
    sizes = [path.stat().st_size for path in model.glob("model*.safetensors")]
    if not sizes:
        sys.exit(f"{model}: no model*.safetensors")
    return sum(sizes)


def quality(results, name):
    accuracy = load(results, name, "accuracy")
    kl = load(results, name, "kl")
    return (
        f"{kl['mean_row_kl']:.5f}",
        f"{accuracy['accuracy']:.3f} ± {accuracy['stderr']:.3f}",
    )


def weights_row(results, name, model):
    bench = load(results, name, "bench")
    return (
        name,
        f"{weight_bytes(model):,}",
        *quality(results, name),
        f"{bench['decode_tokens_per_second']:,.0f}",
    )


def kv_rows(results, dense, names):
    bf16 = load(results, names[0], "kv")["bf16_bytes_per_token"]
    yield dense, f"{bf16:,.0f}", "16.00", *quality(results, dense)
    for name in names:
        kv = load(results, name, "kv")
        yield (
            name,
            f"{kv['bytes_per_token']:,.0f}",
            f"{kv['bits_per_value']:.2f}",
            *quality(results, name),
        )


def print_table(header, rows):
    rows = [header, *rows]
    widths = [max(len(cells[i]) for cells in rows) for i in range(len(header))]
    rows.insert(1, tuple("-" * width for width in widths))
    for cells in rows:
        padded = [cells[0].ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:])]
        print("| " + " | ".join(padded) + " |")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("results", type=pathlib.Path)
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL")
    parser.add_argument("--kv", nargs="+", required=True, metavar="NAME")
    arguments = parser.parse_args()
    results = arguments.results
    models = [argument.partition("=")[::2] for argument in arguments.models]
    print_table(
        HEADER,
        [weights_row(results, name, pathlib.Path(path)) for name, path in models],
    )
    print()
    print_table(KV_HEADER, kv_rows(results, models[0][0], arguments.kv))


if __name__ == "__main__":
    main()
