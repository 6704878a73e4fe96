#!/usr/bin/env python3
"""One table of what a card does with models of known shapes at random weights
(gpu_models.py), beside what it can read: gpu.py FOLDER OPTIQ..., where OPTIQ is
the command (pack/run optiq) and FOLDER keeps the models (36 GB)."""

import contextlib
import json
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from gpu_models import write_model
from serve_load import Stream, run_streams

SHORT = {"prompt": 64}
# Shape, bits, what is measured, options of `optiq bench`.
CASES = [
    ("llama-8b", 4, "fast", {}),
    ("llama-8b", 4, "exact", {"compute": "exact"}),
    ("llama-8b", 8, "fast", {}),
    ("llama-8b", 4, "8 sequences", {**SHORT, "batch": 8}),
    ("llama-8b", 4, "16 sequences", {**SHORT, "batch": 16}),
    ("llama-8b", 4, "32 sequences", {**SHORT, "batch": 32}),
    ("llama-8b", 4, "64 sequences", {**SHORT, "batch": 64}),
    ("llama-8b", 4, "behind 8192 tokens", {**SHORT, "context": 8192}),
    ("llama-8b", 4, "behind 8192 tokens, K/V of 4 bits", {**SHORT, "context": 8192, "kv-bits": 4}),
    ("llama-8b", 4, "behind 32768 tokens, K/V of 4 bits", {**SHORT, "context": 32768, "kv-bits": 4}),
    ("qwen3.5-9b", 4, "fast", {}),
    ("qwen3.5-9b", 16, "fast", {}),
    ("qwen3.5-9b", 16, "exact", {"compute": "exact"}),
    ("qwen3.5-0.8b", 4, "fast", {}),
]


def model_of(folder, shape, bits):
    model = folder / f"{shape}-{bits}bit"
    if not (model / "tokenizer.json").exists():  # which is written last
        write_model(shape, model, bits)
    return model


def measured(optiq, model, options):
    with tempfile.NamedTemporaryFile(suffix=".json") as result:
        options = {"prompt": 2048, "gen": 64, "repeats": 3, "device": "cuda", "json": result.name, **options}
        flags = [word for name, value in options.items() for word in (f"--{name}", value)]
        command = [str(word) for word in (*optiq, "bench", model, *flags)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return json.loads(Path(result.name).read_text())


def spread(result, name):
    low, high = result[name + "_spread"]
    return (high - low) / result[name + "_tokens_per_second"]


def is_ready(port):
    body = json.dumps({"prompt": "a", "max_tokens": 1}).encode()
    url = f"http://127.0.0.1:{port}/v1/completions"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request):
            return True
    except OSError:  # nobody listens, or the model is being loaded
        return False


@contextlib.contextmanager
def serving(optiq, model, streams):
    """The port of a server that has loaded the model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*optiq, "serve", model, "--device", "cuda", "--port", port, "--max-concurrent", streams]
    server = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):  # a minute
            if is_ready(port):
                break
            time.sleep(0.1)
        yield port
    finally:
        server.terminate()
        server.wait()


def served(port, model, streams, temperature):
    """Tokens a second of streams of 256 tokens together, the median of three."""
    speeds = []
    for i in range(3):
        options = {"model": model.name, "max_tokens": 256, "temperature": temperature}
        prompts = [f"Number {stream}, round {i}: " for stream in range(streams)]
        all_streams = [Stream(port, "/v1/completions", {"prompt": prompt, **options}) for prompt in prompts]
        seconds = run_streams(all_streams)
        speeds.append(sum(stream.usage()["completion_tokens"] for stream in all_streams) / seconds)
    return statistics.median(speeds)


def print_served(optiq, model, temperature):
    with serving(optiq, model, 32) as port:
        one = served(port, model, 1, temperature)
        many = served(port, model, 32, temperature)
    print(f"served at temperature {temperature}: one stream {one:.0f}, 32 streams {many:.0f} tokens/s, {many / one:.1f} x")


def main():
    folder, optiq = Path(sys.argv[1]), sys.argv[2:]
    doctor = subprocess.run([*optiq, "doctor"], capture_output=True, text=True, check=True).stdout
    print(*(line for line in doctor.splitlines() if line.startswith("card")), sep="\n")
    reads = float(re.search(r"cuda:0 reads (\d+) GB/s", doctor).group(1)) * 1e9
    print(f"{'':48} {'prefill':>9} {'decode':>9} {'spread':>7} {'of reads':>8}  KL to exact")
    for shape, bits, what, options in CASES:
        result = measured(optiq, model_of(folder, shape, bits), options)
        decode = result["decode_tokens_per_second"]
        widest = max(spread(result, "prefill"), spread(result, "decode"))
        kl = f"{result['kl_to_exact']:.1e}" if "kl_to_exact" in result else ""
        print(f"{f'{shape}, {bits} bits, {what}':48} {result['prefill_tokens_per_second']:9.0f} {decode:9.0f} "
              f"{widest:7.1%} {decode * result['bytes_per_token'] / reads:8.0%}  {kl}", flush=True)  # fmt: skip
    for temperature in (0, 0.8):
        print_served(optiq, model_of(folder, "llama-8b", 4), temperature)


main()
