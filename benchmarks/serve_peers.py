#!/usr/bin/env python3
"""`optiq serve` beside llama.cpp's server: the same model, slots, threads and prompts, in turn.

Both servers run all the time, and rounds of one measurement each go from one to
the other, so that both meet the machine in the same state: total tokens/s of 1, 8
and 16 streams, the first token of a short prompt that comes while a long one is
prefilled, both again beside a process that keeps a core busy, and the first token
of a second turn. Greedy, end tokens ignored. Prints Markdown: medians, spreads
and ratios round by round.

  benchmarks/serve_peers.py --optiq build/release/optiq/cli/optiq --out DIR

Needs `scripts/setup --developer --peers`.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import time
import urllib.request
from pathlib import Path

from _neighbour import busy_neighbour
from peers import LLAMA_CPP, MODEL, ROOT, Peers
from serve_load import Stream, run_streams, text_of, values_of

TINY = ROOT / "models" / "tiny-qwen3.5"
STREAMS = (1, 8, 16)
BUSY = ", busy neighbour"
# One token each, with the space before, in the vocabularies of many models.
WORDS = (
    "time year people way day man thing woman life child world school state family student group country problem "
    "hand part place case week company system program question work government number night point home water room "
    "mother area money story fact month right study book eye job word business issue side kind head house service "
    "friend father power hour game line end member law car city community name president team minute idea body "
    "information back parent face level office door health person art war history party result change morning"
).split()


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--optiq", type=Path, default=ROOT / "build/release/optiq/cli/optiq")
    parser.add_argument("--llama-cpp", type=Path, default=LLAMA_CPP)
    parser.add_argument("--model", type=Path, default=MODEL, help="a GGUF file")
    parser.add_argument("--out", type=Path, default=ROOT / "build/peers")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--gen", type=int, default=128, help="tokens of each answer")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of a short prompt, about")
    parser.add_argument("--long-prompt", type=int, default=2048, help="tokens of a long prompt, about")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="writes the figures of each round, too")
    return parser.parse_args()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A server process for a with block; `extra` are fields that it needs in every request."""

    def __init__(self, name, model, command, port, extra, log):
        self.name = name
        self.model = model.name
        self.port = port
        self.extra = extra
        self.log = log
        with log.open("w") as output:
            words = [str(word) for word in command]
            self.process = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)

    def __enter__(self):
        self.wait_until_ready()
        return self

    def __exit__(self, *_):
        self.stop()

    def wait_until_ready(self, seconds=120):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError):
                if urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).status == 200:
                    return
            time.sleep(0.2)
        self.stop()
        raise SystemExit(f"{self.name} does not answer:\n{self.log.read_text()[-3000:]}")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def completion(self, prompt, max_tokens):
        body = {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, **self.extra}
        return Stream(self.port, "/v1/completions", body)

    def chat(self, messages, max_tokens):
        body = {"messages": messages, "max_tokens": max_tokens, "temperature": 0, **self.extra}
        return Stream(self.port, "/v1/chat/completions", body)


def end_ids(model):
    """Of generation_config.json, or of config.json."""
    for name in ("generation_config.json", "config.json"):
        path = model / name
        found = json.loads(path.read_text()).get("eos_token_id") if path.exists() else None
        if found is not None:
            return found if isinstance(found, list) else [found]
    raise SystemExit(f"{model}: no eos_token_id")


def start_ours(arguments, model, log):
    port = free_port()
    command = [arguments.optiq, "serve", "--model", model, "--port", port, "--threads", arguments.threads]
    command += ["--max-concurrent", max(STREAMS)]
    bias = {str(token): -100 for token in end_ids(model)}
    return Server("OptIQ", model, command, port, {"logit_bias": bias}, log)


def start_theirs(arguments, model, log):
    port = free_port()
    slots = max(STREAMS)
    context = slots * (arguments.long_prompt + 512)
    command = [arguments.llama_cpp / "llama-server", "-m", model, "--host", "127.0.0.1", "--port", port]
    command += ["-t", arguments.threads, "-tb", arguments.threads, "-np", slots, "-c", context, "--no-webui"]
    return Server("llama.cpp", model, command, port, {"ignore_eos": True, "cache_prompt": True}, log)


class Prompts:
    """Texts that no server has seen before: each call gives another one, the same in each run of a seed."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def text(self, words):
        return " ".join(self.random.choices(WORDS, k=words))


def total_rate(server, prompts, max_tokens):
    """Tokens of the answers per second, from the first request to the last event."""
    streams = [server.completion(prompt, max_tokens) for prompt in prompts]
    seconds = run_streams(streams)
    tokens = [stream.usage()["completion_tokens"] for stream in streams]
    if any(n != max_tokens for n in tokens):
        raise SystemExit(f"{server.name}: answers of {tokens} tokens, expected {max_tokens}")
    return sum(tokens) / seconds


def first_beside_prefill(server, long_prompt, short_prompt):
    """Seconds to the first token of a short prompt, sent while a long one is prefilled."""
    long, short = server.completion(long_prompt, 2), server.completion(short_prompt, 8)
    run_streams([long, short], [0.0, 0.05])
    if long.first_token < 0.05:
        raise SystemExit(f"{server.name}: the long prompt was done before the short one came")
    return short.first_token


def both_turns(server, text, follow_up):
    """Seconds to the first token of a long first turn and of the second one, and the second's cached share."""
    messages = [{"role": "user", "content": text}]
    first = server.chat(messages, 16)
    run_streams([first])
    answer = [text_of(value) or "" for value in values_of(bytes(first.received))]
    messages += [{"role": "assistant", "content": "".join(answer)}, {"role": "user", "content": follow_up}]
    second = server.chat(messages, 16)
    run_streams([second])
    details = second.usage().get("prompt_tokens_details") or {}
    return {
        "first": first.first_token,
        "second": second.first_token,
        "gain": first.first_token / second.first_token,
        "prompt": second.usage()["prompt_tokens"],
        "cached": details.get("cached_tokens", 0),
    }


def spread(values, digits):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def ratios(tops, bottoms):
    return spread([top / bottom for top, bottom in zip(tops, bottoms)], 2)


def streams(n):
    return "1 stream" if n == 1 else f"{n} streams"


class Measurements:
    """Rounds of all cases, of each server in turn."""

    def __init__(self, servers, arguments):
        self.servers = servers
        self.arguments = arguments
        self.prompts = Prompts("load")
        self.values = {}  # (case, server's name): one value a round

    def add(self, case, measure):
        """One round: the same prompts for each server, whose order alternates."""
        self.servers.reverse()
        for server in self.servers:
            self.values.setdefault((case, server.name), []).append(measure(server))

    def measure_load(self, suffix):
        a = self.arguments
        for n in STREAMS:
            texts = [self.prompts.text(a.prompt) for _ in range(n)]
            self.add(f"{streams(n)}, tokens/s{suffix}", lambda server, texts=texts: total_rate(server, texts, a.gen))
        long, short = self.prompts.text(a.long_prompt), self.prompts.text(a.prompt)
        self.add(f"first token beside a prefill, ms{suffix}",
                 lambda server: 1000 * first_beside_prefill(server, long, short))  # fmt: skip

    def run(self):
        for _ in range(self.arguments.rounds):
            self.measure_load("")
            with busy_neighbour():
                self.measure_load(BUSY)

    def print_table(self):
        ours, theirs = "OptIQ", "llama.cpp"
        print(f"| | {ours} | {theirs} | {ours} / {theirs} |\n|---|---|---|---|")
        for case in dict.fromkeys(case for case, _ in self.values):
            a, b = self.values[case, ours], self.values[case, theirs]
            print(f"| {case} | {spread(a, 1)} | {spread(b, 1)} | {ratios(a, b)} |")
        print("\n| of the quiet speed, what is left beside a busy neighbour | OptIQ | llama.cpp |\n|---|---|---|")
        for case in [case for case, name in self.values if name == ours and BUSY not in case]:
            quiet, busy = ([self.values[c, name] for name in (ours, theirs)] for c in (case, case + BUSY))
            if case.endswith(", ms"):  # of times the inverse
                quiet, busy = busy, quiet
            left = [ratios(b, q) for b, q in zip(busy, quiet)]
            print(f"| {case.rpartition(',')[0]} | {left[0]} | {left[1]} |")
        one, eight = (self.values[f"{streams(n)}, tokens/s", ours] for n in (1, 8))
        print(f"\n8 streams of OptIQ / 1 stream: {ratios(eight, one)}")


def measure_turns(server, arguments):
    """Prints a row; returns the rounds."""
    words = words_for(server, arguments.long_prompt)
    prompts = Prompts("turns")
    rounds = [both_turns(server, prompts.text(words), prompts.text(20)) for _ in range(arguments.rounds)]
    first, second = (spread([1000 * r[key] for r in rounds], 1) for key in ("first", "second"))
    gain = spread([r["gain"] for r in rounds], 1)
    cached = f"{rounds[-1]['cached']} of {rounds[-1]['prompt']}"
    print(f"| {server.name}, {server.model} | {first} | {second} | {gain} | {cached} |", flush=True)
    return rounds


def words_for(server, tokens):
    """So many words make a prompt of about so many tokens."""
    probe = server.completion(Prompts("length").text(200), 1)
    run_streams([probe])
    return round(200 * tokens / probe.usage()["prompt_tokens"])


def compare(arguments, servers):
    """The figures of both servers under load, and of their second turns."""
    measurements = Measurements(servers, arguments)
    measurements.run()
    measurements.print_table()
    print("\n| second turn | first turn, ms | second turn, ms | first / second | cached tokens |\n|---|---|---|---|---|")
    figures = {"load": {}, "turns": {}}
    for (case, name), values in measurements.values.items():
        figures["load"].setdefault(case, {})[name] = values
    for server in servers:
        figures["turns"][f"SmolLM2, {server.name}"] = measure_turns(server, arguments)
    return figures


def main():
    arguments = parse_arguments()
    peers = Peers(arguments)
    ours4, theirs4 = peers.quantize_ours(4), peers.quantize_theirs("q4_0", "Q4_0")
    print(
        f"{arguments.model.name} at 4 bits, {arguments.threads} threads, {max(STREAMS)} slots, answers of "
        f"{arguments.gen} tokens, {os.cpu_count()} cores, medians of {arguments.rounds} rounds (least to largest)\n"
    )
    with contextlib.ExitStack() as servers:
        ours = servers.enter_context(start_ours(arguments, ours4, arguments.out / "optiq-serve.log"))
        theirs = servers.enter_context(start_theirs(arguments, theirs4, arguments.out / "llama-server.log"))
        figures = compare(arguments, [ours, theirs])
    with start_ours(arguments, TINY, arguments.out / "optiq-serve-tiny.log") as tiny:
        figures["turns"]["tiny-qwen3.5, OptIQ"] = measure_turns(tiny, arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
