"""Our cache of the hub, judged by PyPI's huggingface_hub, which reads ours and
whose own we read; both against the mock hub of tests/e2e."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "e2e"))
from _support import BIN, MODEL, optiq, scratch

# Read when the package is imported: nothing of this machine's set-up, no
# telemetry, no second transfer protocol.
HOME = scratch()
os.environ.update(HF_HOME=HOME.name,
                  HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_PROGRESS_BARS="1",
                  HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_UPDATE_CHECK="1")
for name in ("HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "http_proxy",
             "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
    os.environ.pop(name, None)

from _mock_hub import HubFile, MockHub, model_files
from huggingface_hub import scan_cache_dir, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

REPO = "Qwen/Qwen3.5-9B"
BIG = "model-00001-of-00002.safetensors"


def environment(home, hub, **more):
    return {"HF_HOME": str(home), "HF_ENDPOINT": hub.url, "HF_TOKEN": "", "HF_HUB_CACHE": "", **more}


def same_view(cache, env):
    """scan_cache_dir and optiq list see the same models, refs and bytes."""
    theirs = scan_cache_dir(cache)
    assert not theirs.warnings, theirs.warnings
    ours = {m["repo"]: m for m in json.loads(optiq("list", "--json", env=env)[0])["models"]}
    assert {r.repo_id for r in theirs.repos} == set(ours)
    for repo in theirs.repos:
        mine = ours[repo.repo_id]
        assert repo.size_on_disk == mine["bytes"] - mine["unfinished_bytes"], repo
        revisions = {r["commit"]: r for r in mine["revisions"]}
        assert {r.commit_hash for r in repo.revisions} == set(revisions)
        for revision in repo.revisions:
            row = revisions[revision.commit_hash]
            assert sorted(revision.refs) == sorted(row["refs"]), revision
            assert revision.size_on_disk == row["bytes"], revision
            assert str(revision.snapshot_path) == row["path"], revision
    return theirs


def they_accept_ours(tmp):
    cache = tmp / "ours" / "hub"
    with MockHub({REPO: model_files(MODEL)}) as hub:
        env = environment(tmp / "ours", hub)
        optiq("pull", REPO, env=env)
        optiq("pull", f"{REPO}@refs/pr/1", env=env)
        files = hub.repos[REPO].files
        revision = next(iter(next(iter(same_view(cache, env).repos)).revisions))
        assert revision.refs == {"main", "refs/pr/1"}
        for file in revision.files:
            name = str(file.file_path.relative_to(revision.snapshot_path))
            assert file.blob_path.name == files[name].hash, name
        for wanted in (None, hub.repos[REPO].commit, "refs/pr/1"):
            path = snapshot_download(REPO, revision=wanted, cache_dir=cache, local_files_only=True)
            assert Path(path) == revision.snapshot_path
        # Online they fetch what we left out, and nothing that is there.
        hub.forget()
        path = snapshot_download(REPO, cache_dir=cache, endpoint=hub.url)
        assert (Path(path) / "golden.safetensors").exists()
        got = {p.rsplit("/", 1)[-1] for p in hub.paths() + hub.paths("cdn") if "resolve" in p or "cdn" in p}
        have = {str(f.file_path.relative_to(revision.snapshot_path)) for f in revision.files}
        assert got and not got & have, got & have
        same_view(cache, env)

        # After a removal of one revision of two they still find no fault.
        hub.repos[REPO] = type(hub.repos[REPO])(
            {**files, "config.json": HubFile(files["config.json"].content + b"\n")})
        optiq("pull", REPO, env=env)
        assert len(next(iter(same_view(cache, env).repos)).revisions) == 2
        optiq("rm", f"{REPO}@refs/pr/1", "--yes", env=env)
        assert len(next(iter(same_view(cache, env).repos)).revisions) == 1
        snapshot_download(REPO, cache_dir=cache, local_files_only=True,
                          allow_patterns=["*.json", "model*.safetensors"])
        optiq("rm", REPO, "--yes", env=env)
        try:
            snapshot_download(REPO, cache_dir=cache, local_files_only=True)
            raise AssertionError("they still find the model")
        except LocalEntryNotFoundError:
            pass


def we_accept_theirs(tmp):
    cache = tmp / "theirs" / "hub"
    with MockHub({REPO: model_files(MODEL)}) as hub:
        env = environment(tmp / "theirs", hub)
        path = snapshot_download(REPO, cache_dir=cache, endpoint=hub.url)
        same_view(cache, env)
        hub.forget()
        out, _ = optiq("pull", REPO, env=env)
        assert out == f"{path}\n"
        assert len(hub.log) == 1, hub.log  # the question for the commit
        hub.forget()
        out, _ = optiq("inspect", REPO, env={**env, "HF_HUB_OFFLINE": "1"})
        assert out.startswith(REPO) and not hub.log

        # A snapshot that they left unfinished is completed, not believed.
        (Path(path) / BIG).unlink()
        optiq("inspect", REPO, env={**env, "HF_HUB_OFFLINE": "1"}, expect=3)
        optiq("pull", REPO, env=env)
        assert not hub.paths("cdn"), "the blob was there"
        optiq("inspect", REPO, env={**env, "HF_HUB_OFFLINE": "1"})
        same_view(cache, env)

        # Interrupted by us, finished by them.
        other = tmp / "both"
        hub.drops = {BIG: [3_000_000] + [0] * 20}
        optiq("pull", REPO, env=environment(other, hub), expect=6)
        assert scan_cache_dir(other / "hub").incomplete_files
        hub.drops = {}
        path = snapshot_download(REPO, cache_dir=other / "hub", endpoint=hub.url)
        assert (Path(path) / BIG).read_bytes() == (MODEL / BIG).read_bytes()
        same_view(other / "hub", environment(other, hub))


def put(path, content=b"", link=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    os.symlink(link, path) if link else path.write_bytes(content)


def make_odd_cache(root):
    """What other systems and interrupted downloads leave behind."""
    first, second, third = (c * 40 for c in "123")
    linked = root / "models--org--linked"
    for name, size in (("shared", 1000), ("one", 10), ("two", 200), ("orphan", 7)):
        put(linked / "blobs" / name, bytes(size))
    put(linked / "blobs" / "part.incomplete", bytes(33))
    for commit, own in ((first, "one"), (second, "two"), (third, "one")):
        put(linked / "snapshots" / commit / "config.json", link=f"../../blobs/{own}")
        put(linked / "snapshots" / commit / "sub" / "weights", link="../../../blobs/shared")
        put(linked / "snapshots" / commit / "again", link="../../blobs/shared")
    put(linked / "snapshots" / first / "notes.txt", bytes(5))  # made by the user
    for ref, commit in (("main", second), ("refs/pr/1", first), ("v1.0", second)):
        put(linked / "refs" / ref, commit.encode())
    put(linked / "refs" / "desktop.ini", b"x")
    put(linked / ".no_exist" / first / "absent.json")
    plain = root / "models--org--plain"  # Windows: no links, no blobs
    for commit in (first, second):
        put(plain / "snapshots" / commit / "config.json", bytes(40))
        put(plain / "snapshots" / commit / "sub" / "weights", bytes(500))
    put(plain / "refs" / "main", second.encode())
    old = root / "models--gpt2"  # of the time before organisations
    put(old / "blobs" / "b", bytes(60))
    put(old / "snapshots" / first / "config.json", link="../../blobs/b")
    put(root / "datasets--org--name" / "snapshots" / first / "x", bytes(3))
    put(root / "CACHEDIR.TAG")
    put(root / "version.txt", b"1")
    return linked


def tree(root):
    """Every file and link below a folder; our lock files apart."""
    return sorted(
        (str(p.relative_to(root)), os.readlink(p) if p.is_symlink() else p.read_bytes())
        for p in root.rglob("*") if (p.is_symlink() or p.is_file()) and ".locks" not in p.parts)


def odd_caches_look_the_same(tmp):
    cache = tmp / "odd" / "hub"
    linked = make_odd_cache(cache)
    env = {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}

    def listed():
        models = json.loads(optiq("list", "--json", env=env)[0])["models"]
        return {m["repo"]: m for m in models}

    theirs = scan_cache_dir(cache)
    ours = listed()
    models = {r.repo_id: r for r in theirs.repos if r.repo_type == "model"}
    assert set(models) == set(ours) == {"org/linked", "org/plain", "gpt2"}, (models, ours)
    for name, repo in models.items():
        mine = ours[name]
        assert repo.size_on_disk == mine["bytes"] - mine["unfinished_bytes"], name
        rows = {r["commit"]: r for r in mine["revisions"]}
        for revision in repo.revisions:
            row = rows.pop(revision.commit_hash)
            assert sorted(revision.refs) == sorted(row["refs"]), revision
            assert revision.size_on_disk == row["bytes"], revision
        assert not rows, rows
    assert ours["org/linked"]["unfinished_bytes"] == theirs.incomplete_size_on_disk == 33

    # Each revision removed by both, one after another.
    steps = [("org/linked", "1" * 40), ("org/linked", "2" * 40), ("org/linked", "3" * 40),
             ("org/plain", "2" * 40), ("org/plain", "1" * 40), ("gpt2", "1" * 40)]
    copy = tmp / "odd" / "judge"
    shutil.copytree(cache, copy, symlinks=True)
    for name, commit in steps:
        scanned = scan_cache_dir(copy)
        # Hashes name revisions across models: only this one is looked at.
        only = dataclasses.replace(scanned, repos=frozenset(
            r for r in scanned.repos if (r.repo_id, r.repo_type) == (name, "model")))
        only.delete_revisions(commit).execute()
        optiq("rm", f"{name}@{commit}", "--yes", env=env)
        assert tree(cache) == tree(copy), (name, commit)
    assert not listed()

    # What they call corrupted (a ref to nowhere, or one that ends in a newline) we show all the same.
    make_odd_cache(tmp / "odd" / "refs")
    env["HF_HUB_CACHE"] = str(tmp / "odd" / "refs")
    put(tmp / "odd" / "refs" / linked.name / "refs" / "v2", b"9" * 40)
    (tmp / "odd" / "refs" / "models--org--plain" / "refs" / "main").write_bytes(b"2" * 40 + b"\n")
    refs = {m: {ref for r in row["revisions"] for ref in r["refs"]} for m, row in listed().items()}
    assert refs == {"org/linked": {"main", "refs/pr/1", "v1.0"}, "org/plain": {"main"}, "gpt2": set()}, refs


def the_cache_is_found_as_they_find_it(tmp):
    """The variables that name the cache, in their order."""
    base = {name: None for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME")}
    cases = [
        {}, {"HF_HOME": f"{tmp}/home"}, {"XDG_CACHE_HOME": f"{tmp}/xdg"}, {"HF_HOME": "~/somewhere"},
        {"HF_HOME": f"{tmp}/home", "HUGGINGFACE_HUB_CACHE": f"{tmp}/old"},
        {"HUGGINGFACE_HUB_CACHE": f"{tmp}/old", "HF_HUB_CACHE": f"{tmp}/new"},
        {"HF_HUB_CACHE": "$OPTIQ_TEST_DISK/hub", "OPTIQ_TEST_DISK": f"{tmp}/disk"},
        {"HF_HOME": "${OPTIQ_TEST_DISK}/x-$OPTIQ_ABSENT", "OPTIQ_TEST_DISK": f"{tmp}/disk"},
    ]
    for case in cases:
        env = {k: v for k, v in {**os.environ, **base, **case}.items() if v is not None}
        code = "from huggingface_hub import constants; print(constants.HF_HUB_CACHE)"
        wanted = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        found = subprocess.run([BIN, "list", "--json"], env=env, capture_output=True, text=True, check=True)
        assert json.loads(found.stdout)["cache"] == wanted.stdout.strip(), case


def a_cache_without_links_is_used(tmp):
    """Files that lie in the snapshot itself are not fetched again."""
    home = tmp / "windows"
    with MockHub({REPO: model_files(MODEL)}) as hub:
        snapshot = home / "hub" / f"models--{REPO.replace('/', '--')}" / "snapshots" / hub.repos[REPO].commit
        shutil.copytree(MODEL, snapshot)
        env = environment(home, hub)
        out, _ = optiq("pull", REPO, env=env)
        assert out == f"{snapshot}\n", out
        assert not hub.paths("cdn") and not any("resolve" in p for p in hub.paths()), hub.log
        optiq("inspect", REPO, env={**env, "HF_HUB_OFFLINE": "1"})
        same_view(home / "hub", env)


def main():
    with scratch() as folder:
        they_accept_ours(Path(folder))
        we_accept_theirs(Path(folder))
        odd_caches_look_the_same(Path(folder))
        the_cache_is_found_as_they_find_it(Path(folder))
        a_cache_without_links_is_used(Path(folder))


main()
