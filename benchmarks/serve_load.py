#!/usr/bin/env python3
"""Streams of an OpenAI-like server at once, at little cost to the machine that also serves them.

One thread, plain sockets: an event costs a few microseconds. Used by serve_peers.py.
"""

import json
import selectors
import socket
import time


class Stream:
    """One streamed POST. Times are seconds since `sent`."""

    def __init__(self, port, path, body, timeout=600):
        self.body = json.dumps({"stream": True, "stream_options": {"include_usage": True}, **body}).encode()
        self.head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
            f"Connection: close\r\nContent-Length: {len(self.body)}\r\n\r\n"
        ).encode()
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.received = bytearray()
        self.scanned = 0
        self.first_token = None
        self.ended = None

    def send(self):
        self.sent = time.perf_counter()
        self.socket.sendall(self.head + self.body)
        self.socket.setblocking(False)

    def read(self):
        """Takes what has come; False at the end."""
        data = self.socket.recv(1 << 16)
        self.received += data
        if self.first_token is None and self._has_token():
            self.first_token = time.perf_counter() - self.sent
        if not data:
            self.ended = time.perf_counter() - self.sent
            self.socket.close()
        return bool(data)

    def _has_token(self):
        """Whether an event with text has come; looks at each event once."""
        while (end := self.received.find(b"\n\n", self.scanned)) >= 0:
            event = bytes(self.received[self.scanned : end])
            self.scanned = end + 2
            if any(text_of(value) for value in values_of(event)):
                return True
        return False

    def usage(self):
        """Of the last events. Raises when the stream broke off or failed."""
        text = bytes(self.received)
        if b"data: [DONE]" not in text:
            raise RuntimeError(f"no whole stream: {text[-600:]!r}")
        found = [value["usage"] for value in values_of(text) if value.get("usage")]
        return found[-1]


def values_of(text):
    """The JSON of the data lines; pieces of a chunked body in between are no lines of data."""
    for line in text.split(b"\n"):
        if line.startswith(b"data: {"):
            yield json.loads(line[6:])


def text_of(value):
    choice = (value.get("choices") or [{}])[0]
    delta = choice.get("delta") or {}
    return choice.get("text") or delta.get("content") or delta.get("reasoning_content")


def run_streams(streams, delays=None):
    """Sends each after its delay (seconds, ascending), reads all to their ends; seconds from first to last."""
    selector = selectors.DefaultSelector()
    started = time.perf_counter()
    waiting = list(zip(delays or [0.0] * len(streams), streams))
    running = 0
    while waiting or running:
        while waiting and time.perf_counter() - started >= waiting[0][0]:
            stream = waiting.pop(0)[1]
            stream.send()
            selector.register(stream.socket, selectors.EVENT_READ, stream)
            running += 1
        timeout = max(0.0, waiting[0][0] - (time.perf_counter() - started)) if waiting else None
        for key, _ in selector.select(timeout):
            if not key.data.read():
                selector.unregister(key.fileobj)
                running -= 1
    return time.perf_counter() - started
