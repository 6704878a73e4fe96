"""optiq serve as a user runs it, on tiny-qwen3.5: what it prints, its flags, its end."""

import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))
from _support import BIN, MODEL, optiq, scratch

END_TOKENS = json.loads((Path(MODEL) / "generation_config.json").read_text())["eos_token_id"]
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # its python3 has openai


class Serving:
    def __init__(self, process, printed):
        self.process, self.printed = process, printed
        self.lines = printed.split("Ask it:\n")[1].splitlines()
        found = re.search(r"^Serving .* at (.+)\n", printed)
        self.address = found.group(1)

    def curl(self, path, *arguments, text=False):
        done = subprocess.run(["curl", "-s", *arguments, self.address + path], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done
        return done.stdout if text else json.loads(done.stdout)

    def end(self, *signals):
        """Sends the signals; exit status, seconds, what was printed on stderr."""
        start = time.monotonic()
        for number in signals or [signal.SIGTERM]:
            self.process.send_signal(number)
            time.sleep(0.3)
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, time.monotonic() - start, errors


@contextlib.contextmanager
def serving(*flags, key="", max_files=1024):
    process = subprocess.Popen(
        [BIN, "serve", MODEL, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OPTIQ_API_KEY": key},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (max_files, 4096)))  # fmt: skip
    try:
        printed = ""
        last = "curl " if "--unix-socket" in flags else "optiq chat "
        while not re.search(rf"^{last}.*\n", printed, re.MULTILINE):
            line = process.stdout.readline()
            assert line, process.stderr.read()
            printed += line
        yield Serving(process, printed)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def shell(line, key=""):
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120,
                          env={**os.environ, "PATH": PATH, "OPTIQ_API_KEY": key})  # fmt: skip
    assert done.returncode == 0, (line, done.stdout, done.stderr)
    return done.stdout


def the_lines_it_prints_ask_it():
    with serving("--port", "0", "--temp", "0", "--max-tokens", "8") as server:
        for word in ("Serving tiny-qwen3.5 at http://127.0.0.1:", "18.6 MB", "1024 bytes per token", "8 at a time"):
            assert word in server.printed, server.printed
        curl, python = server.lines[:2]
        answer = json.loads(shell(curl))
        assert answer["usage"]["completion_tokens"] <= 8
        assert shell(python).strip() == answer["choices"][0]["message"]["content"].strip()
        code, seconds, errors = server.end()
        assert code == 0 and seconds < 8, (code, seconds)
    assert errors.count('"POST /v1/chat/completions" 200') == 2, errors


def a_key_is_asked_for_and_never_printed():
    key = "a-secret-of-ours"
    with serving("--port", "0", "--max-tokens", "8", key=key) as server:
        assert server.curl("/v1/models")["error"]["code"] == "invalid_api_key"
        assert "invalid_api_key" in server.curl("/metrics", text=True)
        assert server.curl("/health")
        assert "<html" in server.curl("/", text=True)
        assert server.curl("/v1/models", "-H", f"x-api-key: {key}")["data"][0]["id"] == "tiny-qwen3.5"
        for line in server.lines[:2]:
            shell(line, key=key)
        _, _, errors = server.end()
        assert key not in server.printed + errors
    with serving("--port", "0", "--api-key", "one", "--api-key", "two", "--model-id", "mine") as server:
        for given in ("one", "two"):
            listed = server.curl("/v1/models", "-H", f"Authorization: Bearer {given}")
            assert listed["data"][0]["id"] == "mine"


def other_names_and_origins_are_refused():
    with serving("--port", "0", "--allowed-host", "my.example", "--allowed-origin", "https://app.example") as server:
        assert server.curl("/v1/models", "-H", "Host: evil.example")["error"]["code"] == "host_not_allowed"
        assert server.curl("/v1/models", "-H", "Host: my.example")["data"]
        assert server.curl("/v1/models", "-H", "Origin: http://evil.example")["error"]["code"] == "origin_not_allowed"
        listed = server.curl("/v1/models", "-i", "-H", "Origin: https://app.example", text=True)
        assert "access-control-allow-origin: https://app.example" in listed
        assert "access-control" not in server.curl("/v1/models", "-i", text=True)


def flags_stand_over_the_models_own_options():
    config = json.loads((MODEL / "generation_config.json").read_text())
    with serving("--port", "0", "--top-k", "7", "--kv-bits", "8", "--kv-memory", "64MB", "--max-concurrent", "3",
                 "--max-queue", "5") as server:  # fmt: skip
        defaults = server.curl("/v1/optiq/model")["defaults"]
        assert defaults["top_k"] == 7
        assert abs(defaults["temperature"] - config["temperature"]) < 1e-6
        assert "affine 8, " in server.printed and "3 at a time, 5 more wait" in server.printed
        metrics = server.curl("/metrics", text=True)
        per_token = int(re.search(r"^optiq_kv_bytes_per_token (\d+)", metrics, re.MULTILINE).group(1))
        assert f" {per_token} bytes per token: 64.0 MB hold" in server.printed, (per_token, server.printed)
        assert per_token < 1024 and "optiq_kv_max_bytes 64000000\n" in metrics


def a_unix_socket_serves_and_goes():
    with scratch() as folder:
        path = Path(folder) / "it's a socket"
        with serving("--unix-socket", path, "--max-tokens", "4", "--log-format", "json") as server:
            assert path.stat().st_mode & 0o777 == 0o600
            for line in server.lines * 2:
                shell(line)
            code, _, errors = server.end()
            assert code == 0 and not path.exists()
        log = [json.loads(line) for line in errors.splitlines() if line.startswith("{")]
        assert [entry["status"] for entry in log] == [200, 200] and log[0]["peer"] == "unix", errors
        assert log[0]["target"] == "/v1/chat/completions" and log[0]["seconds"] > 0


def it_takes_more_connections_than_files_it_started_with():
    with serving("--port", "0", max_files=64) as server:
        port = int(server.address.rsplit(":", 1)[1])
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
        for client in clients:
            client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for client in clients:
            assert b"200 OK" in client.recv(4096)
            client.close()


def a_log_that_nobody_reads_holds_nobody_up():
    with serving("--port", "0") as server:  # its stderr is a pipe of 64 KiB
        port = int(server.address.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            for _ in range(2000):
                client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert b"200 OK" in client.recv(4096)
        code, _, errors = server.end()
        assert code == 0 and errors.count('"GET /health" 200') == 2000


def a_second_signal_ends_it_at_once():
    with serving("--port", "0", "--drain-seconds", "50") as server:
        port = int(server.address.rsplit(":", 1)[1])
        no_end = {str(token): -100 for token in END_TOKENS}
        body = json.dumps({"prompt": "1 2 3", "max_tokens": 3900, "stream": True, "logit_bias": no_end})
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n{body}"
                           .encode())  # fmt: skip
            assert b"200 OK" in client.recv(4096)
            code, seconds, errors = server.end(signal.SIGINT, signal.SIGINT)
        assert code == -signal.SIGINT and seconds < 10, (code, seconds, errors)


def what_cannot_be_served_is_refused_at_start():
    def refused(*flags, status=2, model=MODEL):
        _, errors = optiq("serve", model, *flags, expect=status, env={"OPTIQ_API_KEY": ""})
        return errors

    assert "--api-key" in refused("--host", "0.0.0.0")
    assert "--api-key" in refused("--host", "::")
    assert "empty key" in refused("--api-key", "")
    assert "--unix-socket" in refused("--unix-socket", "x", "--port", "1")
    assert "--kv-memory" in refused("--port", "0", "--kv-memory", "1000TB", status=7)
    assert "temperature" in refused("--port", "0", "--temp", "-1")
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = str(busy.getsockname()[1])
        # Said before anybody looks for the model.
        assert f"127.0.0.1:{port}: somebody listens" in refused("--port", port, model="no-such-model")


if __name__ == "__main__":
    the_lines_it_prints_ask_it()
    a_key_is_asked_for_and_never_printed()
    other_names_and_origins_are_refused()
    flags_stand_over_the_models_own_options()
    a_unix_socket_serves_and_goes()
    it_takes_more_connections_than_files_it_started_with()
    a_log_that_nobody_reads_holds_nobody_up()
    a_second_signal_ends_it_at_once()
    what_cannot_be_served_is_refused_at_start()
