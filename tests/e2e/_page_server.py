"""The page of optiq serve before a scripted server: what it does depends on the question."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PAGE = Path(__file__).parents[2] / "optiq" / "server" / "page"
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
# That of server/page.cpp; e2e/serve_page.py compares them.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)

MODEL = {
    "id": "mock-model", "model_type": "mock", "parameters": 135_000_000, "file_bytes": 77_000_000,
    "file_bpw": 4.563, "mean_code_bits": 4.01, "context": 8192, "vocab_size": 49152, "device": "cpu", "simd": "AVX2",
    "compute": "fast", "version": "0.1.0",
    "columns": [
        {"part": "self_attn.q_proj", "block": "self_attn", "name": "q"},
        {"part": "self_attn.k_proj", "block": "self_attn", "name": "k"},
        {"part": "mlp.up_proj", "block": "mlp", "name": "up"},
    ],
    "layers": [
        {"layer": 0, "kv": {"method": "affine", "key_bits": 8, "value_bits": 4, "group_size": 64}, "parts": [
            {"part": "self_attn.q_proj", "bits": 4, "group_size": 64, "bytes": 1000},
            {"part": "self_attn.k_proj", "bits": 8, "group_size": 64, "bytes": 2000},
            {"part": "mlp.up_proj", "bits": 3, "group_size": 64, "bytes": 3000}]},
        {"layer": 1, "kv": {"method": "state", "bytes": 66_000}, "parts": [
            {"part": "mlp.up_proj", "bits": 16, "group_size": 0, "bytes": 4000}]},
        {"layer": 2, "kv": {"method": "dense", "bits": 16, "window": 512}, "parts": []},
        {"layer": 3, "kv": {"method": "shared", "layer": 2}, "parts": []},
        {"layer": 4, "kv": {"method": "turbo", "key_bits": 3.5, "value_bits": 0}, "parts": []},
    ],
    "outside": [{"part": f"part_{bits}", "bits": bits, "group_size": 64, "bytes": 5000} for bits in (2, 3, 4, 5, 6, 8, 16)],
    "kv_bytes_per_token": 5760, "sequence_bytes": 66_000,
    "defaults": {"temperature": 0.6000000238418579, "top_p": 0.95, "top_k": 20, "max_tokens": 32768},
    "adapters": [],
    "status": {"running": 1, "waiting": 2, "kv_bytes": 250_000_000, "kv_max_bytes": 1_000_000_000,
               "prefix_bytes": 3_000_000, "prompt_tokens": 300, "cached_tokens": 100, "answer_tokens": 0,
               "preemptions": 7},
}  # fmt: skip


def delta(**fields):
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


def finish(reason="stop", completion=3, prompt=10, cached=0):
    yield {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
    yield {"choices": [], "usage": {
        "prompt_tokens": prompt, "completion_tokens": completion,
        "prompt_tokens_details": {"cached_tokens": cached}}, "timings": {"predicted_per_second": 1234.5}}  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, content_type, body, **headers):
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def answer_json(self, status, value, **headers):
        self.answer(status, "application/json", json.dumps(value).encode(), **headers)

    def refuse(self, status, message, param=None, **headers):
        self.answer_json(status, {"error": {"message": message, "type": "mock", "param": param}}, **headers)

    def is_refused(self):
        key = self.server.mock.key
        if key is None or self.headers["authorization"] == f"Bearer {key}":
            return False
        self.refuse(401, "An API key is wanted.")
        return True

    def do_GET(self):
        name = "index.html" if self.path == "/" else self.path.removeprefix("/page/")
        if self.path == "/v1/optiq/model":
            if not self.is_refused():
                self.answer_json(200, {**MODEL, "adapters": self.server.mock.adapters})
        elif "/" not in name and (PAGE / name).is_file():
            file = PAGE / name
            self.answer(200, TYPES[file.suffix], file.read_bytes(), content_security_policy=POLICY)
        else:
            self.refuse(404, "no such thing")

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.is_refused():
            return
        self.server.mock.requests.append(request)
        question = request["messages"][-1]["content"]
        if question == "busy":
            self.refuse(429, "Too many wait.", retry_after="7")
        elif question == "refuse":
            self.refuse(400, "top_p must be at most 1.", param="top_p")
        elif question == "unmounted":
            self.refuse(404, "found no adapter 'math', expected one of: none is mounted", param="adapter")
        elif question == "no json":
            self.answer(502, "text/html", b"<h1>Bad gateway</h1>")
        else:
            self.stream(self.server.mock.script(question))

    def stream(self, events):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        try:
            for event in events:
                text = event if isinstance(event, str) else f"data: {json.dumps(event)}\n\n"
                self.wfile.write(text.encode())
                self.wfile.flush()
        except OSError:
            self.server.mock.gone += 1
        self.close_connection = True


class MockServer:
    """Serves until the with block ends. `answers` are texts by question."""

    def __init__(self, key=None):
        self.key = key
        self.answers = {}
        self.adapters = []  # ids of those that are mounted
        self.requests = []  # bodies of POST
        self.gone = 0  # clients that left an answer
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.mock = self
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def __enter__(self):
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()

    def script(self, question):
        """Yields the events of an answer: objects, or bytes of the stream."""
        yield ": keep-alive\n\n"
        yield delta(role="assistant", content="")
        if question == "slow":
            for i in range(600):
                yield delta(content=f"word{i} ")
                time.sleep(0.05)
        elif question == "fails":
            yield delta(content="half an ans")
            yield {"error": {"message": "The engine failed.", "type": "server_error"}}
            return
        elif question == "cut":
            yield delta(content="half a sentence")
            return
        elif question == "thinks":
            yield delta(reasoning_content="Let me see. <b>2 + 2</b>")
            yield delta(content="Four.")
            yield from finish(completion=9, prompt=1200, cached=1024)
        elif question == "split":
            # An event in pieces, and every line ending of the standard.
            text = json.dumps(delta(content="ünder")).encode().decode("latin-1")
            yield from (text[:0], f"data: {json.dumps(delta(content='split '))}"[:20])
            yield f"data: {json.dumps(delta(content='split '))}"[20:] + "\r"
            yield "\n\r\n"
            yield f"data:{json.dumps(delta(content='lines'))}\r\r"
            yield from finish()
        else:
            text = self.answers.get(question, f"You said: {question}")
            for at in range(0, len(text), 16):
                yield delta(content=text[at : at + 16])
            yield from finish(completion=max(1, len(text) // 4))
        yield "data: [DONE]\n\n"
