"""Our cache of the hub, judged by PyPI's huggingface_hub, which reads ours and
whose own we read; both against the mock hub of tests/e2e."""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "e2e"))
from _support import MODEL, optiq, scratch

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


def main():
    with scratch() as folder:
        they_accept_ours(Path(folder))
        we_accept_theirs(Path(folder))


main()
