"""A server on a fake model, and many raw sockets against it at once.

One thread and one epoll: a client that takes long itself measures nothing.
"""

import contextlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import time
from pathlib import Path

DRIVER = Path(os.environ["OPTIQ_DRIVER_DIR"]) / "fake_server_driver"
LAST_CHUNK = b"\r\n0\r\n\r\n"


def allow_many_files(n=8192):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = n if hard == resource.RLIM_INFINITY else min(n, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


class Server:
    def __init__(self, process, port):
        self.process, self.port, self.pid = process, port, process.pid

    def rss(self):
        """Resident bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the server is gone")

    def n_files(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def get(self, path):
        """Status and body of one request on a connection of its own."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as s:
            s.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while piece := s.recv(65536):
                answer += piece
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode()

    def metrics(self):
        """Values of /metrics without labels, by name."""
        status, text = self.get("/metrics")
        assert status == 200, status
        values = {}
        for line in text.splitlines():
            if line and not line.startswith("#") and "{" not in line:
                name, value = line.split()[:2]
                values[name] = float(value)
        return values

    def end(self, limit=30):
        """SIGTERM; the exit code, and the seconds that it took."""
        start = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=limit), time.monotonic() - start


    def cpu_seconds(self):
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def fake_server(max_files=8192, **flags):
    """fake_server_driver with the flags: step_us=1 is --step-us 1."""
    words = [str(DRIVER)]
    for name, value in flags.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    allow_many_files()
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (max_files, max_files)))  # fmt: skip
    try:
        port = int(process.stdout.readline().split()[1])
        yield Server(process, port)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


def chat_request(text="#", **fields):
    """A prompt that ends in # is answered by "<more>" without end, in : by the alphabet."""
    body = {"model": "scripted", "messages": [{"role": "user", "content": text}], **fields}
    data = json.dumps(body).encode()
    head = ("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n\r\n")
    return head.encode() + data


class Stream:
    """One request on one connection."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.received = b""
        self.sent_at = self.first_at = self.ended_at = None
        self.gone = False

    def send(self, data):
        self.socket.setblocking(True)
        self.socket.sendall(data)
        self.socket.setblocking(False)
        self.sent_at = time.monotonic()

    def take(self):
        """Reads what is there. True at the end of the answer."""
        try:
            piece = self.socket.recv(262144)
        except BlockingIOError:
            return False
        except ConnectionError:
            piece = b""
        now = time.monotonic()
        if not piece:
            self.gone, self.ended_at = True, now
            return True
        self.first_at = self.first_at or now
        self.received += piece
        if self.received.endswith(LAST_CHUNK):
            self.ended_at = now
            return True
        return False

    def close(self):
        self.socket.close()

    @property
    def status(self):
        return int(self.received.split(None, 2)[1]) if self.received else 0

    @property
    def complete(self):
        return self.received.endswith(LAST_CHUNK)

    @property
    def first_byte(self):
        return self.first_at - self.sent_at

    def events(self):
        """Data of the events, and '[DONE]'."""
        _, _, rest = self.received.partition(b"\r\n\r\n")
        data = b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            n = int(size, 16)
            data, rest = data + rest[:n], rest[n + 2:]
        lines = [line[6:] for line in data.decode().split("\n") if line.startswith("data: ")]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]

    def text(self):
        return "".join(choice["delta"].get("content") or ""
                       for event in self.events() if event != "[DONE]"
                       for choice in event.get("choices", []))


def wait_for(streams, until=lambda stream: False, limit=120):
    """Reads from all of them until each has ended, or `until` holds of it."""
    poll = select.epoll()
    open_streams = {stream.socket.fileno(): stream for stream in streams}
    for number in open_streams:
        poll.register(number, select.EPOLLIN)
    deadline = time.monotonic() + limit
    while open_streams and time.monotonic() < deadline:
        for number, _ in poll.poll(0.5):
            stream = open_streams[number]
            if stream.take() or until(stream):
                poll.unregister(number)
                del open_streams[number]
    poll.close()
    assert not open_streams, f"{len(open_streams)} of {len(streams)} streams did not end in {limit} s"


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
