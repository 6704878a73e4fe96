"""A server of OpenAI's protocol that says what its last message asks for."""

import json
import os
import socketserver
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def address_string(self):
        return "client"

    def send(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def event(self, data):
        text = data if isinstance(data, str) else json.dumps(data)
        piece = f"data: {text}\r\n\r\n".encode()
        self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        self.wfile.flush()

    def delta(self, finish=None, **fields):
        self.event({"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]})

    def do_GET(self):
        self.send(200, json.dumps({"data": [{"id": "echo"}, {"id": "other"}]}).encode())

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((body, self.headers.get("Authorization")))
        word = body["messages"][-1]["content"]
        if word == "refuse":
            self.send(401, json.dumps({"error": {"message": "no \x1b[2J key"}}).encode())
            return
        if word == "redirect":
            self.send_response(307)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"b\r\n: waiting\n\n\r\n")
        self.delta(role="assistant", content="")
        if word == "think":
            self.delta(reasoning_content="hmm")
        if word == "hostile":
            self.delta(content="\x1b[2Jowned")
        try:
            while word == "endless":
                self.delta(content="on and ")
                time.sleep(0.02)
        except OSError:
            self.server.gone.set()
            self.close_connection = True
            return
        if word == "break":
            self.close_connection = True
            return
        for piece in ("you said ", word):
            self.delta(content=piece)
        self.delta(finish="length" if word == "long" else "stop")
        self.event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class ChatServer:
    """`with ChatServer() as server`: at server.url, or at a unix socket."""

    def __init__(self, socket=None):
        if socket:
            self.server = UnixServer(os.fspath(socket), Handler)
            self.url = f"unix:{socket}"
        else:
            self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.server.requests = self.requests = []
        self.server.gone = self.gone = threading.Event()

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
