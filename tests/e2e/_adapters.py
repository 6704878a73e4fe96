"""Random adapters of tiny-qwen3.5, and answers that are compared bit by bit."""

import http.client
import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from _server import serving_model
from _support import DRIVERS, MODEL, run

ROWS = [json.loads(row) for row in (MODEL / "eval_arithmetic.jsonl").open()]
# Longer than a block of kept prefixes: all prompts share it, whatever adapter they have.
TURNS = [
    {"role": role, "content": content}
    for row in ROWS[:1]
    for role, content in (("user", row["question"]), ("assistant", row["answer"]))
]
QUESTIONS = [row["question"] for row in ROWS[1:7]]
WORKERS = 16


def write_adapter(folder, seed):
    """Of all linears but the head, ranks 1 to 5."""
    run(DRIVERS / "adapter_driver", "write", MODEL, folder, seed)
    return folder


def request_body(adapter, question, seed):
    """Half of the answers are drawn, the others are the most probable ones."""
    body = {
        "messages": [*TURNS, {"role": "user", "content": QUESTIONS[question]}], "max_tokens": 8 + 5 * seed,
        "temperature": 0.8 * (seed % 2), "seed": seed, "logprobs": True, "top_logprobs": 2}  # fmt: skip
    return body if adapter == "base" else {**body, "adapter": adapter}


def what_was_said(answer):
    """All that depends on the logits: texts, tokens and the floats of logprobs."""
    (choice,) = answer["choices"]
    return choice["message"]["content"], choice["finish_reason"], choice["logprobs"]["content"]


def answers_alone(adapters, cases):
    """{case: answer} of servers that know one adapter each, one request at a time, each of a tenant of its own, so that
    no prefix is shared."""
    alone = {}
    for adapter in ["base", *adapters]:
        own = [case for case in cases if case[0] == adapter]
        flags = ["--adapter", f"{adapter}={adapters[adapter]}"] if adapter in adapters else []
        keys = [flag for i in range(len(own)) for flag in ("--api-key", f"key-{i}")]
        with serving_model("--max-concurrent", "1", *flags, *keys) as server:
            for i, case in enumerate(own):
                status, _, answer = server.request(
                    "/v1/chat/completions", request_body(*case), {"x-api-key": f"key-{i}"})
                assert status == 200, answer
                assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
                alone[case] = what_was_said(answer)
    return alone


def leave_in_the_middle(server, body, n_events):
    """Reads so many events of a stream, then closes the connection."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=300)
    connection.request(
        "POST", "/v1/chat/completions", json.dumps({**body, "stream": True}), {"content-type": "application/json"})
    answer = connection.getresponse()
    assert answer.status in (200, 404), answer.status
    for _ in range(2 * n_events):  # a line and an empty one each
        answer.readline()
    connection.close()


class Traffic:
    """Requests at random moments, some of which are left in the middle."""

    def __init__(self, server, alone, unmounted=()):
        self.server = server
        self.alone = alone
        self.unmounted = set(unmounted)  # adapters that may be missing
        self.counts = {"equal": 0, "left": 0, "missing": 0, "cached": 0}
        self.lock = threading.Lock()

    def count(self, what, n=1):
        with self.lock:
            self.counts[what] += n

    def ask(self, case, wait, leaves_after):
        time.sleep(wait)
        body = request_body(*case)
        if leaves_after is not None:
            leave_in_the_middle(self.server, body, leaves_after)
            self.count("left")
            return
        status, _, answer = self.server.request("/v1/chat/completions", body)
        if status == 404 and case[0] in self.unmounted:
            assert answer["error"]["code"] == "adapter_not_found", answer
            self.count("missing")
            return
        assert status == 200, answer
        said = what_was_said(answer)
        assert said == self.alone[case], (case, said, self.alone[case])
        self.count("equal")
        self.count("cached", answer["usage"]["prompt_tokens_details"]["cached_tokens"] > 0)

    def run(self, n, seed):
        draw = random.Random(seed)
        cases = sorted(self.alone)
        with ThreadPoolExecutor(WORKERS) as pool:
            asked = []
            for _ in range(n):
                leaves_after = draw.randrange(1, 12) if draw.random() < 0.2 else None
                asked.append(pool.submit(self.ask, draw.choice(cases), 0.03 * draw.random(), leaves_after))
            for each in asked:
                each.result()
        return self.counts


class Changes:
    """Unmounts an adapter and mounts it again, until the block ends."""

    def __init__(self, server, adapter, path):
        self.server, self.adapter, self.path = server, adapter, path
        self.over = threading.Event()
        self.n = 0
        self.error = None
        self.thread = threading.Thread(target=self.change, daemon=True)

    def change(self):
        try:
            while not self.over.wait(0.05):
                status, _, body = self.server.request(f"/v1/adapters/{self.adapter}", method="DELETE")
                assert status == 200, body
                time.sleep(0.01)
                status, _, body = self.server.request("/v1/adapters", {"id": self.adapter, "path": self.path})
                assert status == 200, body
                self.n += 1
        except Exception as error:  # told by the block's end
            self.error = error

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        if self.error:
            raise self.error


def check_isolation(folder, n, questions):
    """So many requests, 16 at a time, over five adapters and the model alone, while one of the adapters goes and comes:
    every answer that was completed is that of its own server, bit by bit."""
    adapters = {name: write_adapter(folder / name, seed) for seed, name in enumerate("abcde", 1)}
    cases = [
        (adapter, question, seed)
        for adapter in ["base", *adapters]
        for question in range(questions)
        for seed in (1, 2)
    ]
    alone = answers_alone(adapters, cases)
    first = {alone[adapter, 0, 1][2][0]["logprob"] for adapter in ["base", *adapters]}
    assert len(first) == 6, first  # the adapters differ
    flags = [flag for name, path in adapters.items() for flag in ("--adapter", f"{name}={path}")]
    with serving_model("--max-concurrent", "16", "--adapters-root", folder, *flags) as server:
        started = time.monotonic()
        with Changes(server, "e", "e") as changes:
            counts = Traffic(server, alone, unmounted="e").run(n, seed=1)
        seconds = time.monotonic() - started
        print(f"{n} requests in {seconds:.1f} s: {counts}, adapter e mounted {changes.n} times")
        assert counts["equal"] + counts["left"] + counts["missing"] == n
        assert counts["equal"] > n / 2 and counts["left"] > n / 10 and changes.n > 3
        assert counts["cached"] > n / 4, "prefixes are shared"
        deadline = time.monotonic() + 30
        while server.metrics()["optiq_answers_open"] > 0:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        metrics = server.metrics()
        assert metrics["optiq_engine_restarts_total"] == metrics["optiq_requests_running"] == 0
        assert server.is_alive()
