"""optiq pull, list, rm, and names of the hub as MODEL, against a mock hub that
drops connections, redirects, and lies."""

import json
import os
import pty
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))
from _mock_hub import HubFile, MockHub, model_files
from _support import BIN, MODEL, optiq, run, scratch

REPO = "Qwen/Qwen3.5-9B"
BIG = "model-00001-of-00002.safetensors"
WANTED = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
          "chat_template.jinja", "model.safetensors.index.json", BIG,
          "model-00002-of-00002.safetensors")


def environment(home, hub=None, **more):
    # Whatever the machine has set must not decide a test.
    cleared = {name: "" for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE",
                                     "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN_PATH",
                                     "TRANSFORMERS_OFFLINE", "SSL_CERT_FILE", "http_proxy",
                                     "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY",
                                     "all_proxy")}
    return {**cleared, "HF_HOME": str(home), "HF_ENDPOINT": hub.url if hub else "http://127.0.0.1:9",
            **{name: str(value) for name, value in more.items()}}


def snapshot_of(home, repo, commit):
    return home / "hub" / f"models--{repo.replace('/', '--')}" / "snapshots" / commit


def refused(*arguments, code, env, says):
    _, error = optiq(*arguments, expect=code, env=env)
    last = error.strip().splitlines()[-1]
    assert last.startswith("optiq: "), error
    for part in says:
        assert part in last, (part, last)
    return last


def no_blob(home):
    """Nothing complete or half-checked is visible."""
    blobs = [p for p in home.rglob("blobs/*") if not p.name.endswith(".incomplete")]
    return [p.name for p in blobs if p.stat().st_size >= 1 << 20] == []


def takes_what_a_model_needs(tmp):
    files = {**model_files(MODEL), "README.md": HubFile(b"# model"), ".gitattributes": HubFile(b""),
             "consolidated.safetensors": HubFile(b"x" * 100), "LICENSE": HubFile(b"do"),
             "onnx/model.onnx": HubFile(b"y"), "optiq/notes.json": HubFile(b"{}")}
    home = tmp / "plain"
    with MockHub({REPO: files}) as hub:
        hub.token = "hf_secret"
        env = environment(home, hub, HF_TOKEN="hf_secret")
        out, _ = optiq("pull", REPO, env=env)
        commit = hub.repos[REPO].commit
        snapshot = snapshot_of(home, REPO, commit)
        assert out == f"{snapshot}\n", out
        have = {str(p.relative_to(snapshot)) for p in snapshot.rglob("*") if not p.is_dir()}
        assert have == {*WANTED, "LICENSE", "optiq/notes.json"}, have
        for name in WANTED:
            link = snapshot / name
            assert os.readlink(link) == f"../../blobs/{files[name].hash}"
            assert link.read_bytes() == (MODEL / name).read_bytes(), name
        assert os.readlink(snapshot / "optiq/notes.json").startswith("../../../blobs/")
        refs = snapshot.parent.parent / "refs"
        assert (refs / "main").read_text() == commit
        assert not list(home.rglob("*.incomplete"))

        # The token went to the hub, and to nobody else.
        assert hub.paths("cdn"), "nothing was redirected: the test shows nothing"
        assert all(h.get("Authorization") == "Bearer hf_secret" for h in hub.headers_of("/", "hub"))
        assert not any("Authorization" in h or "hf_secret" in str(h)
                       for h in hub.headers_of("/", "cdn"))

        # Everything is there: one question, no file.
        hub.forget()
        optiq("pull", REPO, env=env)
        assert len(hub.paths("hub")) == 1 and not hub.paths("cdn"), hub.log
        # A commit never changes: no question at all.
        hub.forget()
        optiq("pull", f"{REPO}@{commit}", env=env)
        assert not hub.log, hub.log
        # Another name of the same commit adds a ref, and fetches nothing.
        optiq("pull", f"{REPO}@refs/pr/1", env=env)
        assert (refs / "refs/pr/1").read_text() == commit
        assert len(hub.paths("hub")) == 1 and "refs%2Fpr%2F1" in hub.paths("hub")[0]

        # The token from the file, as huggingface_hub keeps it.
        other = tmp / "token_file"
        other.mkdir()
        (other / "token").write_text("hf_secret\n")
        optiq("pull", REPO, env=environment(other, hub))
        # None, or a wrong one.
        refused("pull", REPO, env=environment(tmp / "none", hub), code=8, says=["HF_TOKEN", "401"])
    return home


def runs_by_name(home):
    """The hub is gone: the cached model runs all the same, and says so."""
    env = environment(home)
    out, error = optiq("generate", REPO, "-p", "What is 7 times 8?", "--max-tokens", "4", env=env)
    assert out.strip() and error.count("note: the hub does not answer") == 1, (out, error)
    offline = environment(home, HF_HUB_OFFLINE=1)
    out, error = optiq("inspect", REPO, env=offline)
    assert out.startswith(f"{REPO} (qwen3_5)") and error == "", (out, error)
    (home / "data.txt").write_text("Anna has 24 apples. Ben gives Anna 18 apples. " * 20)
    out, _ = optiq("eval", REPO, "--task", "kl", "--reference", REPO, "--data", home / "data.txt",
                   "--limit", "1", env=offline)
    assert f"kl of {REPO}" in out and f"reference {REPO}" in out, out
    refused("inspect", "other/model", env=offline, code=3, says=["HF_HUB_OFFLINE", "other--model"])
    refused("inspect", f"{REPO}@v2", env=offline, code=3, says=["HF_HUB_OFFLINE"])
    refused("inspect", "other/model", env=env, code=6, says=["no such file", "127.0.0.1"])

    # Half a snapshot is no model.
    broken = home.parent / "broken"
    shutil.copytree(home, broken, symlinks=True)
    link = next(broken.rglob(f"snapshots/*/{BIG}"))
    link.unlink()
    refused("inspect", REPO, env=environment(broken, HF_HUB_OFFLINE=1), code=3, says=["whole"])


def local_paths_win(tmp):
    with MockHub({REPO: model_files(MODEL)}) as hub:
        env = environment(tmp / "local", hub)
        work = tmp / "work"
        (work / "Qwen").mkdir(parents=True)
        os.symlink(MODEL, work / "Qwen" / "Qwen3.5-9B")
        done = subprocess.run([BIN, "inspect", REPO], cwd=work, env={**os.environ, **env},
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and done.stdout.startswith("tiny-qwen3.5"), done
        assert not hub.log
        refused("inspect", "absent", env=env, code=3, says=["no such file", "org/name"])
        refused("inspect", "./absent/model", env=env, code=3, says=["no such file"])
        refused("inspect", "org/../name", env=env, code=3, says=["no such file"])
        refused("inspect", "some/absent", env=env, code=3, says=["no such file", "hub", "no such repository"])
        refused("inspect", f"{REPO}@v9", env=env, code=3, says=["no such revision"])
        refused("inspect", f"{REPO}:x.gguf", env=env, code=3, says=["no file x.gguf"])


def goes_on_after_drops(tmp):
    files = model_files(MODEL)
    big, home = files[BIG], tmp / "drops"
    with MockHub({REPO: files}) as hub:
        hub.drops = {BIG: [300_000, 0, 1_000_000, 70_000], "/config.json": [100]}
        optiq("pull", REPO, env=environment(home, hub))
        snapshot = snapshot_of(home, REPO, hub.repos[REPO].commit)
        assert (snapshot / BIG).read_bytes() == big.content
        assert (snapshot / "config.json").read_bytes() == files["config.json"].content
        ranges = [h.get("Range") for h in hub.headers_of(BIG, "cdn")]
        assert ranges[0] is None and ranges[-1] == "bytes=1370000-", ranges
        # The ETag of the host that sent the bytes goes back to that host only.
        assert hub.headers_of(BIG, "cdn")[-1].get("If-Match") == f'"cdn-{big.sha256[:16]}"'
        assert not any("If-Match" in h for h in hub.headers_of(BIG, "hub"))
        assert hub.headers_of("/config.json")[-1].get("If-Match") == f'"{files["config.json"].sha1}"'
        assert hub.bytes_sent[BIG] == big.size, "bytes were sent twice"

    # A server that never gets further: an error, and the part is kept.
    with MockHub({REPO: files}) as hub:
        hub.drops = {BIG: [200_000] + [0] * 50}
        last = refused("pull", REPO, env=environment(tmp / "stuck", hub), code=6,
                       says=["at byte 200000", "kept"])
        assert len(hub.paths("cdn")) == 5, last
        assert next((tmp / "stuck").rglob("*.incomplete")).stat().st_size == 200_000

    # It answers 503, then asks for patience, then works.
    with MockHub({REPO: files}) as hub:
        hub.statuses = [(503, {}), (429, {"Retry-After": "1"})]
        start = time.monotonic()
        optiq("pull", REPO, env=environment(tmp / "busy", hub))
        assert time.monotonic() - start >= 1.5


def survives_kill(tmp):
    files, home = model_files(MODEL), tmp / "killed"
    with MockHub({REPO: files}) as hub:
        hub.delay = 0.01
        env = {**os.environ, **environment(home, hub)}
        for _ in range(3):
            sent = hub.bytes_sent.get(BIG, 0)
            child = subprocess.Popen([BIN, "pull", REPO], env=env, stdout=subprocess.DEVNULL,
                                     stderr=subprocess.DEVNULL)
            end = time.monotonic() + 60
            while hub.bytes_sent.get(BIG, 0) < sent + 500_000 and time.monotonic() < end:
                time.sleep(0.005)
            child.send_signal(signal.SIGKILL)
            child.wait()
            assert not (home / "hub" / f"models--{REPO.replace('/', '--')}" / "refs").exists()
        hub.delay = 0
        part = next(home.rglob("*.incomplete"))
        assert part.stat().st_size >= 1_000_000
        time.sleep(0.5)  # the server's threads notice that their client is gone
        sent = hub.bytes_sent[BIG]
        expected = files[BIG].size - part.stat().st_size
        optiq("pull", REPO, env=environment(home, hub))
        assert hub.bytes_sent[BIG] - sent == expected
        snapshot = snapshot_of(home, REPO, hub.repos[REPO].commit)
        assert (snapshot / BIG).read_bytes() == files[BIG].content

        # What lay there was of another file: fetched again from the start.
        part = (snapshot / BIG).resolve()
        part.rename(str(part) + ".incomplete")
        with open(str(part) + ".incomplete", "r+b") as f:
            f.write(b"rotten")
        optiq("pull", REPO, env=environment(home, hub))
        assert (snapshot / BIG).read_bytes() == files[BIG].content


def believes_no_lies(tmp):
    def lie(name, change, code, says, hub_change=None):
        files = model_files(MODEL)
        change(files)
        home = tmp / "lies" / name
        with MockHub({REPO: files}) as hub:
            if hub_change:
                hub_change(hub)
            refused("pull", REPO, env=environment(home, hub), code=code, says=says)
        assert no_blob(home), name
        assert not list(home.rglob("refs/*")), name
        return home

    def flipped(files):
        content = bytearray(files[BIG].content)
        content[1234567] ^= 1
        files[BIG].sent_content = bytes(content)

    def flipped_small(files):
        files["config.json"].sent_content = files["config.json"].content.replace(b"{", b"[", 1)

    def sized(size):
        def change(files):
            files[BIG].size = files[BIG].linked_size = size(files[BIG].size)
        return change

    def other_linked(files):
        files[BIG].linked_size += 1

    def other_hash(files):
        files[BIG].hash = "0" * 64

    lie("flipped_bit", flipped, 5, [BIG, "hash"])
    lie("flipped_small", flipped_small, 5, ["config.json", "hash"])
    lie("larger_than_said", sized(lambda n: n - 1), 5, [BIG, "size"])
    lie("smaller_than_said", sized(lambda n: n + 1), 5, [BIG, "size"])
    lie("linked_size", other_linked, 5, [BIG, "size"])
    lie("hash", other_hash, 5, [BIG, "hash"])
    lie("more_than_the_disk", sized(lambda n: 1 << 49), 7, ["needs 562949", "free"])
    lie("absurd_size", sized(lambda n: 1 << 62), 5, [BIG, "size"])
    lie("negative_size", sized(lambda n: -1), 5, [BIG, "size"])
    lie("wrong_etag", lambda files: None, 5, ["hash"],
        lambda hub: setattr(hub, "etag", lambda file: f'"{"1" * 40}"'))

    # No length announced, and more or less than promised.
    def hidden(hub):
        hub.hides_length = True

    lie("hidden_more", sized(lambda n: n - 1), 5, [BIG, "more than"], hidden)
    lie("hidden_less", sized(lambda n: n + 1), 5, [BIG, "ends before"], hidden)

    def listed(siblings):
        def change(hub):
            hub.repos[REPO].listed = siblings
        return change

    good = HubFile(b"{}").sibling("config.json")
    for path in ("../evil", "/etc/evil", "a/../../evil", "a//b", "a/./b", "..", "", "a\\b", "a\nb",
                 "x" * 300, "model/../../../../evil.safetensors"):
        evil = {**good, "rfilename": path}
        home = lie(f"path{abs(hash(path))}", lambda files: None, 5, ["inside the repository"],
                   listed([good, evil]))
        assert not list(home.rglob("*evil*"))
    for number, sibling in enumerate((
            {**good, "blobId": "../../evil"}, {**good, "blobId": "A" * 40},
            {**good, "lfs": {"sha256": "0" * 63, "size": 1}}, {"rfilename": "config.json"}, "text")):
        lie(f"sibling{number}", lambda files: None, 5, ["api/models"], listed([sibling]))
    large = {**HubFile(b"x" * (1 << 20)).sibling("a.safetensors")}
    large["lfs"]["size"] = 1 << 49
    sums = [good, *({**large, "rfilename": f"model-{i}.safetensors"} for i in range(1 << 15))]
    lie("sum_of_sizes", lambda files: None, 5, ["together", "1125899906842624"], listed(sums))
    lie("twice", lambda files: None, 5, ["once"], listed([good, good]))
    lie("no_weights", lambda files: None, 3, ["neither"], listed([good]))
    lie("pickles", lambda files: None, 4, ["pytorch_model.bin"],
        listed([good, {**good, "rfilename": "pytorch_model.bin"}]))


def guards_redirects(tmp):
    def redirected(name, target, code, says):
        with MockHub({REPO: model_files(MODEL)}) as hub:
            hub.redirect = lambda path: target(hub, path)
            refused("pull", REPO, env=environment(tmp / "redirects" / name, hub), code=code, says=says)

    redirected("file", lambda hub, path: "file:///etc/passwd", 8, ["file:///etc/passwd", "http"])
    redirected("ftp", lambda hub, path: "ftp://127.0.0.1/x", 8, ["ftp:"])
    redirected("nowhere", lambda hub, path: "", 8, ["redirects to ''"])
    redirected("user", lambda hub, path: hub.cdn_url.replace("//", "//me:pw@") + path, 8, ["me:pw"])
    redirected("loop", lambda hub, path: f"/{REPO}/resolve/main/{BIG}", 8, ["more than 5 redirects"])
    # A relative one stays on the hub, and takes the token along.
    files = model_files(MODEL)
    with MockHub({REPO: files}) as hub:
        hub.statuses = [(307, {"Location": "main?blobs=true&again=1"})]
        hub.token = "hf_secret"
        optiq("pull", REPO, env=environment(tmp / "relative", hub, HF_TOKEN="hf_secret"))

    # A token in clear text, or one that is none.
    refused("pull", REPO, env=environment(tmp / "clear", HF_ENDPOINT="http://192.0.2.1",
                                          HF_TOKEN="hf_secret"), code=8, says=["clear text"])
    refused("pull", REPO, env=environment(tmp / "header", HF_TOKEN="a\r\nX-Evil: 1"), code=2,
            says=["token"])
    refused("pull", REPO, env=environment(tmp / "scheme", HF_ENDPOINT="ftp://127.0.0.1"), code=2,
            says=["https"])


def insists_on_tls(tmp):
    """An https hub: its certificate is checked, and nothing leads to http."""
    key, cert = tmp / "key.pem", tmp / "cert.pem"
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert,
        "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with MockHub({REPO: model_files(MODEL)}, tls=context) as hub:
        refused("pull", REPO, env=environment(tmp / "untrusted", hub), code=6, says=["certificate"])
        env = environment(tmp / "trusted", hub, SSL_CERT_FILE=cert)
        refused("pull", REPO, env=env, code=8, says=[hub.cdn_url, "expected an https address"])
        assert not hub.paths("cdn")
        for file in hub.repos[REPO].files.values():
            file.is_lfs, file.hash = False, file.sha1
        optiq("pull", REPO, env=env)


def stops_at_once(tmp):
    """Ctrl-C while the hub keeps silent, in a listing and in a file."""
    files = model_files(MODEL)
    for name, delays in (("listing", "/api/"), ("file", BIG)):
        with MockHub({REPO: files}) as hub:
            hub.silent = delays
            home = tmp / "stops" / name
            child = subprocess.Popen([BIN, "pull", REPO], env={**os.environ, **environment(home, hub)},
                                     stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            end = time.monotonic() + 60
            while not any(delays in p for p in hub.paths("hub") + hub.paths("cdn")) and time.monotonic() < end:
                time.sleep(0.01)
            time.sleep(0.3)
            start = time.monotonic()
            child.send_signal(signal.SIGINT)
            _, error = child.communicate(timeout=60)
            seconds = time.monotonic() - start
            assert child.returncode == 130 and "interrupted" in error, (child.returncode, error)
            assert seconds < 1, seconds


def shares_one_download(tmp):
    files, home = model_files(MODEL), tmp / "shared"
    with MockHub({REPO: files}) as hub:
        hub.delay = 0.005
        failures = []

        def pull():
            try:
                optiq("pull", REPO, env=environment(home, hub))
            except AssertionError as error:
                failures.append(error)

        pullers = [threading.Thread(target=pull) for _ in range(3)]
        for thread in pullers:
            thread.start()
        time.sleep(0.5)
        refused("rm", REPO, "--yes", env=environment(home, hub), code=8, says=["running"])
        for thread in pullers:
            thread.join()
        assert not failures
        assert {n: hub.bytes_sent[n] for n in WANTED} == {n: files[n].size for n in WANTED}


def chooses_gguf(tmp):
    q4, q8 = HubFile(b"GGUF4" * 300_000), HubFile(b"GGUF8")
    two = {"README.md": HubFile(b"x"), "m-Q4_K_M.gguf": q4, "sub/m-Q8_0.gguf": q8}
    with MockHub({"org/two": two, "org/one": {"m.gguf": q8}}) as hub:
        env = environment(tmp / "gguf", hub)
        refused("pull", "org/two", env=env, code=2,
                says=["m-Q4_K_M.gguf, sub/m-Q8_0.gguf", "org/two:m-Q4_K_M.gguf"])
        assert not hub.paths("cdn")
        for name, file in (("m-Q4_K_M.gguf", q4), ("sub/m-Q8_0.gguf", q8)):
            out, _ = optiq("pull", f"org/two:{name}", env=env)
            assert Path(out.strip()).read_bytes() == file.content
        out, _ = optiq("pull", "org/one@main", env=env)
        assert out.endswith("/m.gguf\n")
        out, _ = optiq("pull", "org/one", env={**env, "HF_HUB_OFFLINE": "1"})
        assert out.endswith("/m.gguf\n")
        refused("pull", "org/two:m-Q2_K.gguf", env=env, code=3, says=["It has m-Q4_K_M.gguf"])
        listing = json.loads(optiq("list", "--json", env=env)[0])
        assert [r["what"] for m in listing["models"] for r in m["revisions"]] == ["GGUF", "GGUF"]


def fetches_gguf_in_parts(tmp):
    parts = {f"m-{i:05}-of-00003.gguf": HubFile(b"part %d" % i) for i in (1, 2, 3)}
    lacking = {name: file for name, file in parts.items() if "00002-of" not in name}
    with MockHub({"org/parts": parts, "org/lacking": lacking}) as hub:
        env = environment(tmp / "parts", hub)
        for name in ("org/parts", "org/parts:m-00003-of-00003.gguf"):
            out, _ = optiq("pull", name, env=env)
            first = Path(out.strip())
            assert first.name == "m-00001-of-00003.gguf", first
            assert {p.name: p.read_bytes() for p in first.parent.iterdir()} == {
                name: file.content for name, file in parts.items()}
        out, _ = optiq("pull", "org/parts", env={**env, "HF_HUB_OFFLINE": "1"})
        assert out.strip() == str(first)
        refused("pull", "org/lacking", env=env, code=3, says=["m-00002-of-00003.gguf, part 2 of 3"])


def lists_and_removes(tmp):
    home = tmp / "lists"
    env = environment(home)
    out, _ = optiq("list", env=env)
    assert out.startswith("0 models in "), out
    refused("rm", REPO, "--yes", env=env, code=3, says=["not in the cache"])
    old = model_files(MODEL)
    new = {**old, "config.json": HubFile(old["config.json"].content + b"\n")}
    with MockHub({REPO: old, "org/name": {"m.gguf": HubFile(b"G" * 50)}}) as hub:
        env = environment(home, hub)
        optiq("pull", REPO, env=env)
        first = hub.repos[REPO].commit
        hub.repos[REPO] = type(hub.repos[REPO])(new)
        second = hub.repos[REPO].commit
        optiq("pull", REPO, env=env)
        optiq("pull", "org/name", env=env)
    size = sum(old[n].size for n in WANTED)
    listing = json.loads(optiq("list", "--json", env=env)[0])
    assert listing["cache"] == str(home / "hub")
    mine = {m["repo"]: m for m in listing["models"]}
    assert list(mine) == [REPO, "org/name"], list(mine)
    revisions = {r["commit"]: r for r in mine[REPO]["revisions"]}
    assert revisions[first]["refs"] == [] and revisions[second]["refs"] == ["main"]
    assert revisions[first]["bytes"] == size and revisions[second]["bytes"] == size + 1
    assert mine[REPO]["bytes"] == size + new["config.json"].size  # one config more
    assert revisions[first]["what"] == "qwen3_5"
    table, _ = optiq("list", env=env)
    assert "Qwen/Qwen3.5-9B" in table and "2 models in" in table and "GGUF" in table, table

    # Without a terminal and --yes nothing is deleted; outside the cache never.
    refused("rm", REPO, env=env, code=2, says=["--yes"])
    for name in (str(home / "hub"), "../x", "org/..", "org/name/..", "org/name:m.gguf", str(MODEL)):
        refused("rm", name, "--yes", env=env, code=2, says=["org/name"])
    optiq("rm", f"{REPO}@{first}", "--yes", env=env)
    assert optiq("inspect", REPO, env={**env, "HF_HUB_OFFLINE": "1"})[0].startswith(REPO)
    refused("rm", f"{REPO}@{first}", "--yes", env=env, code=3, says=[first])
    for answer, code in ((b"n\n", 130), (b"\n", 130), (b"y\n", 0)):
        status, text = on_terminal([BIN, "rm", REPO], answer, env)
        assert status == code and b"Delete everything of" in text, (status, text)
        assert (home / "hub" / "models--Qwen--Qwen3.5-9B").exists() == (code != 0)

    # A folder that is a link leads out of the cache.
    outside = tmp / "outside"
    shutil.copytree(home / "hub" / "models--org--name", outside)
    os.symlink(outside, home / "hub" / "models--org--linked")
    refused("rm", "org/linked", "--yes", env=env, code=8, says=["link"])
    assert (outside / "snapshots").is_dir()
    optiq("rm", "org/name", "--yes", env=env)
    assert not (home / "hub" / "models--org--name").exists()


def on_terminal(command, answer, env):
    """Runs a command on a pseudo terminal; exit status and what it showed."""
    master, slave = pty.openpty()
    child = subprocess.Popen([str(c) for c in command], stdin=slave, stdout=slave, stderr=slave,
                             env={**os.environ, **env})
    os.close(slave)
    os.write(master, answer)
    status = child.wait(timeout=60)
    text = b""
    try:
        while piece := os.read(master, 4096):
            text += piece
    except OSError:
        pass  # Linux says EIO when the other end is closed
    os.close(master)
    return status, text


def shows_progress(tmp):
    files = model_files(MODEL)
    with MockHub({REPO: files}) as hub:
        _, error = optiq("pull", REPO, "--progress", "json", env=environment(tmp / "progress", hub))
    events = [json.loads(line) for line in error.splitlines()]
    assert {e["stage"] for e in events} == {"download"}
    total = sum(files[n].size for n in WANTED)
    assert events[-1]["done"] == events[-1]["total"] == total, events[-1]
    done = [e["done"] for e in events]
    assert done == sorted(done)


def main():
    with scratch() as folder:
        tmp = Path(folder)
        home = takes_what_a_model_needs(tmp)
        runs_by_name(home)
        for check in (local_paths_win, goes_on_after_drops, survives_kill, believes_no_lies,
                      guards_redirects, insists_on_tls, stops_at_once, shares_one_download, chooses_gguf, fetches_gguf_in_parts,
                      lists_and_removes, shows_progress):
            start = time.monotonic()
            check(tmp)
            print(f"{check.__name__}: {time.monotonic() - start:.1f} s")


main()
