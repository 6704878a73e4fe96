"""optiq eval and optiq bench as a user runs them: results, files, errors."""

import json
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))

from _support import MODEL, optiq, scratch

DATA = MODEL / "eval_arithmetic.jsonl"

KEYS = {
    "kl": [
        "mean_kl", "mean_row_kl", "median_kl", "p99_kl", "top1_agreement",
        "tokens", "stderr",
    ],
    "ppl": ["ppl", "stderr"],
    "exact-match": ["accuracy", "stderr", "count"],
}  # fmt: skip


def evaluate(folder, task, data, *more):
    """The JSON of one evaluation; the table must show the same figure."""
    result = folder / "result.json"
    out, _ = optiq(
        "eval", MODEL, "--task", task, "--data", data, "--json", result,
        "--progress", "none", *more,
    )  # fmt: skip
    found = json.loads(result.read_text())
    for key in KEYS[task]:
        assert math.isfinite(found[key]), key
        assert key == "stderr" or key in out, key
    assert found["task"] == task and found["data"] == Path(data).name
    return found


def check_tasks(folder):
    kl = evaluate(folder, "kl", DATA, "--reference", MODEL, "--limit", "5")
    assert kl["mean_kl"] == 0 and kl["top1_agreement"] == 1
    assert kl["rows"] == 5 and kl["compute"] == "exact" and kl["limit"] == 5
    fast = evaluate(
        folder, "kl", DATA, "--reference", MODEL, "--limit", "5",
        "--compute", "fast",
    )  # fmt: skip
    assert 0 < fast["mean_kl"] < 1e-3 and fast["compute"] == "fast", fast
    text = folder / "text.txt"
    text.write_text("A bird sat on the wall. It sang all day long. " * 40)
    short = evaluate(folder, "ppl", text, "--seq-len", "32", "--limit", "3")
    assert short["tokens"] == 3 * 31
    # 6 questions, in 4 + 2 and one by one: the same answers.
    match = evaluate(folder, "exact-match", DATA, "--limit", "6", "--batch", "4")
    alone = evaluate(folder, "exact-match", DATA, "--limit", "6", "--batch", "1")
    assert match["accuracy"] == alone["accuracy"] >= 4 / 6
    assert match["count"] == 6 and match["compute"] == "fast"


def refused(status, says, *arguments):
    _, error = optiq("eval", *arguments, expect=status)
    assert says in error, (says, error)


def check_errors(folder):
    empty = folder / "empty.jsonl"
    empty.write_text("")
    bad = folder / "bad.jsonl"
    bad.write_text('{"question": "a", "value": 1}\n{"question": "b"}\n')
    text = folder / "plain.txt"
    text.write_text("words " * 5000)
    one = ("--data", DATA, "--limit", "1")
    refused(2, "--task", MODEL, "--data", DATA)
    refused(2, "dance", MODEL, "--task", "dance", *one)
    refused(2, "--data", MODEL, "--task", "ppl")
    refused(2, "--reference", MODEL, "--task", "kl", *one)
    refused(2, "--reference", MODEL, "--task", "ppl", "--reference", MODEL, *one)
    refused(2, "no model", "--task", "ppl", *one)
    refused(2, "empty", MODEL, "--task", "ppl", "--data", empty)
    refused(5, "line 2", MODEL, "--task", "exact-match", "--data", bad)
    refused(2, "plain text", MODEL, "--task", "exact-match", "--data", text)
    refused(3, "absent", MODEL, "--task", "ppl", "--data", folder / "absent.txt")
    refused(3, "absent", folder / "absent", "--task", "ppl", *one)
    refused(
        2, "4096 positions", MODEL, "--task", "ppl", "--data", text,
        "--seq-len", "4097",
    )  # fmt: skip
    refused(2, "seq-len", MODEL, "--task", "ppl", "--seq-len", "1", *one)


def check_bench(folder):
    result = folder / "bench.json"
    out, _ = optiq(
        "bench", MODEL, "--prompt", "70", "--gen", "8", "--batch", "2",
        "--context", "5", "--repeats", "2", "--threads", "1", "--json", result,
    )  # fmt: skip
    found = json.loads(result.read_text())
    for key in ("prefill_tokens_per_second", "decode_tokens_per_second",
                "bytes_per_token", "read_bandwidth", "bandwidth_fraction",
                "peak_rss_bytes", "load_seconds"):  # fmt: skip
        assert found[key] > 0, key
    assert found["threads"] == 1 and found["batch"] == 2
    assert 0 < found["kl_to_exact"] < 1e-3 and "to exact" in out, found
    assert found["decode_runs_counted"] <= found["decode_runs"] <= 4
    assert "decode_profile" not in found and "between operations" not in out
    low, high = found["decode_spread"]
    assert low <= found["decode_tokens_per_second"] <= high
    assert "tokens/s" in out and "GB/s" in out
    out, _ = optiq(
        "bench", MODEL, "--prompt", "70", "--gen", "8", "--repeats", "1",
        "--compute", "exact", "--profile", "--json", result,
    )  # fmt: skip
    found = json.loads(result.read_text())
    assert "kl_to_exact" not in found and "between operations" in out
    for name, steps in (("prefill", 1), ("decode", 8)):
        ops = {entry["op"]: entry for entry in found[name + "_profile"]}
        assert ops["embed"]["calls"] == steps, ops
        assert ops["append_and_attend"]["calls"] == 2 * steps, ops
        assert all(entry["seconds"] > 0 for entry in ops.values()), ops
    _, error = optiq("bench", MODEL, "--prompt", "5000", expect=2)
    assert "4096 positions" in error, error
    optiq("bench", MODEL, "--gen", "0", expect=2)


def main():
    with scratch() as folder:
        folder = Path(folder)
        check_tasks(folder)
        check_errors(folder)
        check_bench(folder)


main()
