"""Ids and texts of a tokenizer in both implementations, beside each other."""

import json
import os
import struct
import subprocess
import time

import numpy as np

DRIVER = os.path.join(os.environ["OPTIQ_DRIVER_DIR"], "tokenizer_driver")


def run_driver(judge, texts, folder):
    paths = [os.path.join(folder, name) for name in ("tokenizer.json", "texts", "results")]
    judge.save(paths[0])
    with open(paths[1], "wb") as out:
        for text in texts:
            data = text.encode()
            out.write(struct.pack("<I", len(data)) + data)
    report = json.loads(subprocess.run([DRIVER, *paths], check=True, stdout=subprocess.PIPE).stdout)
    with open(paths[2], "rb") as source:
        return report, source.read()


def parse_results(data):
    at = 0
    while at < len(data):
        (count,) = struct.unpack_from("<I", data, at)
        ids = np.frombuffer(data, np.int32, count, at + 4)
        at += 4 + 4 * count
        (size,) = struct.unpack_from("<I", data, at)
        yield ids, data[at + 4 : at + 4 + size].decode()
        at += 4 + size


def show(name, text, ours, theirs):
    first = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
    near = slice(max(0, first - 3), first + 4)
    print(f"  {name}: first difference at {first}: ours {list(ours[near])!r}, theirs {list(theirs[near])!r}, "
          f"text {text[:200]!r}")


def judge_ids(judge, texts):
    """(ids of every text, seconds of CPU time on one thread)."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    begin = time.process_time()
    encodings = judge.encode_batch_fast(texts)
    seconds = time.process_time() - begin
    return [np.array(e.ids, np.int32) for e in encodings], seconds


def compare(name, judge, texts, folder):
    """Number of texts with any difference: in ids, decoded or streamed text."""
    report, results = run_driver(judge, texts, folder)
    expected, judge_seconds = judge_ids(judge, texts)
    decoded = judge.decode_batch([ids.tolist() for ids in expected], skip_special_tokens=False)
    bad = count = 0
    for text, (ids, back), want_ids, want_back in zip(texts, parse_results(results), expected, decoded, strict=True):
        count += len(ids)
        if not np.array_equal(ids, want_ids):
            bad += 1
            if bad <= 3:
                show("ids", text, ids, want_ids)
        elif back != want_back:
            bad += 1
            if bad <= 3:
                show("decoded", text, back, want_back)
    megabytes = sum(len(t.encode()) for t in texts) / 1e6
    streams = report["streams_that_differ"]
    print(f"{name}: {megabytes:.2f} MB in {len(texts)} texts, {count} ids, {bad} differ, {streams} streams differ; "
          f"{report['encode_seconds'] / megabytes:.3f} s/MB (tokenizers: {judge_seconds / megabytes:.3f} s/MB)", flush=True)
    return bad + streams
