"""Servers for the contract tests: optiq serve on tiny-qwen3.5, and the fake model's."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))
from _support import BIN, DRIVERS, MODEL


class Server:
    """A process that serves, and plain requests to it."""

    def __init__(self, process, url):
        self.process = process
        self.url = url

    def request(self, path, body=None, headers=None, method=None):
        """(status, headers, parsed body or text); a body of bytes is sent as it is."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers or {}, method=method)
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                status, headers, text = answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            status, headers, text = error.code, error.headers, error.read()
        is_json = headers.get_content_type() == "application/json"
        return status, headers, json.loads(text) if is_json and text else text.decode()

    def metrics(self):
        """Values by sample."""
        lines = self.request("/metrics")[2].splitlines()
        return {name: float(value) for name, value in (
            line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}  # fmt: skip

    def is_alive(self):
        return self.process.poll() is None and self.request("/health")[0] == 200


@contextlib.contextmanager
def serving(command, pattern):
    """Runs a server until the block ends; `pattern` finds its URL or port in what it prints."""
    errors = tempfile.TemporaryFile("w+")  # a pipe that nobody reads would stop the server
    process = subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=errors, text=True,
        env={**os.environ, "OPTIQ_API_KEY": ""})  # fmt: skip

    def said():
        errors.seek(0)
        return errors.read()[-2000:]

    try:
        found = None
        while not found:
            line = process.stdout.readline()
            assert line, said()
            found = re.search(pattern, line)
        yield Server(process, f"http://127.0.0.1:{found.group(1)}")
        assert process.poll() is None, said()
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 0, (process.returncode, said())


def serving_model(*flags, model=MODEL):
    return serving(
        [BIN, "serve", model, "--port", "0", *flags], r"http://127\.0\.0\.1:(\d+)")


def serving_fake(*flags):
    return serving([DRIVERS / "fake_server_driver", *flags], r"listening (\d+)")
