"""A small Hugging Face hub on loopback, which can misbehave on purpose.

Two servers: the hub, and the host that large files are redirected to. Both end
by themselves: after MAX_REQUESTS answers, and with the process.
"""

import hashlib
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

MAX_REQUESTS = 3000
SOCKET_TIMEOUT = 60
SILENCE = 10  # seconds
LARGE = 1 << 20  # bytes; files from here on are "LFS": named by SHA-256, redirected


class HubFile:
    """A file of a repository, with what the hub says of it."""

    def __init__(self, source):
        self.content = source if isinstance(source, bytes) else Path(source).read_bytes()
        self.is_lfs = len(self.content) >= LARGE
        self.sha1 = hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()
        self.sha256 = hashlib.sha256(self.content).hexdigest()
        self.hash = self.sha256 if self.is_lfs else self.sha1
        self.size = len(self.content)
        self.sent_content = self.content  # what is sent may differ from what is said
        self.linked_size = self.size

    def sibling(self, name):
        entry = {"rfilename": name, "size": self.size, "blobId": self.sha1}
        if self.is_lfs:
            entry["blobId"] = hashlib.sha1(self.hash.encode()).hexdigest()
            entry["lfs"] = {"sha256": self.hash, "size": self.size, "pointerSize": 134}
        return entry

    def tree_entry(self, name):
        entry = {"type": "file", "path": name, "size": self.size, "oid": self.sha1}
        if self.is_lfs:
            entry["lfs"] = {"oid": self.hash, "size": self.size, "pointerSize": 134}
        return entry


def model_files(folder):
    """The files of a model directory, as a repository holds them."""
    return {str(p.relative_to(folder)): HubFile(p)
            for p in sorted(Path(folder).rglob("*")) if p.is_file()}


class Repo:
    def __init__(self, files):
        self.files = files
        state = "".join(f"{name}{file.hash}" for name, file in sorted(files.items()))
        self.commit = hashlib.sha1(state.encode()).hexdigest()
        self.listed = None  # other siblings than those of the files


class MockHub:
    """with MockHub({"org/name": files}) as hub: ... HF_ENDPOINT=hub.url"""

    def __init__(self, repos, tls=None):
        self.repos = {name: Repo(files) for name, files in repos.items()}
        self.token = None  # when set, the hub refuses requests without it
        self.drops = {}  # path's end -> byte counts after which the line is cut
        self.delay = 0  # seconds between two pieces of a body
        self.silent = None  # part of a path: what has it is not answered for a while
        self.statuses = []  # (status, headers) of the next answers of the hub
        self.redirect = None  # function(path of the other host) -> Location
        self.hides_length = False  # bodies of large files end with the connection
        self.etag = None  # function(file) -> ETag of the hub's own answers
        self.log = []  # (server, method, path, headers), in order
        self.bytes_sent = {}  # path's last part -> body bytes
        self._lock = threading.Lock()
        self._servers = [self._serve("hub", tls), self._serve("cdn", None)]
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self._servers[0].server_port}"
        self.cdn_url = f"http://127.0.0.1:{self._servers[1].server_port}"

    def _serve(self, name, tls):
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = SOCKET_TIMEOUT

            def log_message(self, *_):
                pass

            def do_HEAD(self):
                hub._answer(name, self, send_body=False)

            def do_GET(self):
                hub._answer(name, self, send_body=True)

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        for server in self._servers:
            server.shutdown()
            server.server_close()
        self._servers = []

    def paths(self, server="hub", method="GET"):
        with self._lock:
            return [p for s, m, p, _ in self.log if s == server and m == method]

    def headers_of(self, part, server="hub"):
        with self._lock:
            return [h for s, _, p, h in self.log if s == server and part in p]

    def forget(self):
        with self._lock:
            self.log.clear()
            self.bytes_sent.clear()

    def _answer(self, server, request, send_body):
        with self._lock:
            self.log.append((server, request.command, request.path, dict(request.headers)))
            planned = self.statuses.pop(0) if server == "hub" and self.statuses else None
            is_spent = len(self.log) > MAX_REQUESTS
        if self.silent and self.silent in request.path:
            time.sleep(SILENCE)
        if is_spent:
            planned = (500, {})
        if planned:
            return self._send(request, planned[0], planned[1], b"planned", send_body)
        if server == "hub":
            wanted = self.token and f"Bearer {self.token}"
            if wanted and request.headers.get("Authorization") != wanted:
                return self._send(request, 401, {"X-Error-Code": "GatedRepo"}, b"", send_body)
        path = unquote(urlsplit(request.path).path)
        for pattern, answer in (
                (r"/api/models/([^/]+/[^/]+)/revision/(.+)", self._listing),
                (r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", self._tree),
                (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self._resolve),
                (r"/cdn/([^/]+/[^/]+)/([^/]+)/(.+)", self._cdn)):
            match = re.fullmatch(pattern, path)
            if match and (answer == self._cdn) == (server == "cdn"):
                return answer(request, send_body, *match.groups())
        return self._send(request, 404, {"X-Error-Code": "RepoNotFound"}, b"", send_body)

    def _repo(self, request, send_body, name, revision):
        repo = self.repos.get(name)
        if repo and revision in ("main", "v1.0", "refs/pr/1", repo.commit):
            return repo
        code = "RevisionNotFound" if repo else "RepoNotFound"
        self._send(request, 404, {"X-Error-Code": code}, b"", send_body)
        return None

    def _listing(self, request, send_body, name, revision):
        repo = self._repo(request, send_body, name, revision)
        if repo:
            siblings = repo.listed or [f.sibling(n) for n, f in repo.files.items()]
            answer = {"id": name, "modelId": name, "sha": repo.commit, "private": False,
                      "downloads": 0, "likes": 0, "tags": [], "siblings": siblings}
            self._send(request, 200, {"Content-Type": "application/json"},
                       json.dumps(answer).encode(), send_body)

    def _tree(self, request, send_body, name, revision):
        repo = self._repo(request, send_body, name, revision)
        if repo:
            tree = [f.tree_entry(n) for n, f in repo.files.items()]
            self._send(request, 200, {"Content-Type": "application/json"},
                       json.dumps(tree).encode(), send_body)

    def _resolve(self, request, send_body, name, revision, filename):
        repo = self._repo(request, send_body, name, revision)
        if not repo:
            return
        file = repo.files.get(filename)
        if file is None:
            return self._send(request, 404, {"X-Error-Code": "EntryNotFound"}, b"", send_body)
        headers = {"X-Repo-Commit": repo.commit, "ETag": f'"{file.hash}"', "Accept-Ranges": "bytes"}
        if self.etag:
            headers["ETag"] = self.etag(file)
        if not file.is_lfs:
            return self._send(request, 200, headers, file.sent_content, send_body)
        path = f"/cdn/{name}/{revision}/{filename}"
        headers.update({"X-Linked-Etag": f'"{file.hash}"', "X-Linked-Size": str(file.linked_size),
                        "Location": self.redirect(path) if self.redirect else self.cdn_url + path})
        self._send(request, 302, headers, b"Found. Redirecting", send_body)

    def _cdn(self, request, send_body, name, _, filename):
        file = self.repos[name].files[filename]
        headers = {"ETag": f'"cdn-{file.sha256[:16]}"', "Accept-Ranges": "bytes"}
        self._send(request, 200, headers, file.sent_content, send_body)

    def _send(self, request, status, headers, body, send_body):
        etag = headers.get("ETag")
        wanted = request.headers.get("If-Match")
        start = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        headers = {**headers}
        if status == 200 and wanted and etag and wanted != etag:
            status, body = 412, b""
        elif status == 200 and start and "Accept-Ranges" in headers:
            first, total = int(start[1]), len(body)
            status, body = (206, body[first:]) if first < total else (416, b"")
            headers["Content-Range"] = f"bytes {first}-{total - 1}/{total}"
        request.send_response(status)
        if self.hides_length and "/cdn/" in request.path:
            headers["Connection"] = "close"
        else:
            headers["Content-Length"] = len(body)
        for name, value in headers.items():
            request.send_header(name, str(value))
        request.end_headers()
        if send_body:
            self._send_body(request, body, is_file=status in (200, 206))

    def _send_body(self, request, body, is_file):
        path = unquote(urlsplit(request.path).path)
        with self._lock:
            ends = [end for end in self.drops if is_file and path.endswith(end)]
            cut = self.drops[ends[0]].pop(0) if ends and self.drops[ends[0]] else None
        pieces = body if cut is None else body[:cut]
        try:
            for at in range(0, len(pieces), 1 << 16):
                piece = pieces[at:at + (1 << 16)]
                request.wfile.write(piece)
                with self._lock:  # what the client was sent, error pages apart
                    key = path.rsplit("/", 1)[-1]
                    self.bytes_sent[key] = self.bytes_sent.get(key, 0) + is_file * len(piece)
                if self.delay:
                    time.sleep(self.delay)
            if cut is not None:
                request.wfile.flush()
                request.close_connection = True
        except OSError:
            request.close_connection = True  # the client went away
