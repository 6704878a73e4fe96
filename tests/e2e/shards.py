"""optiq convert --shard: shares measured by themselves, one of them killed and one lost, give the
bytes of a conversion without them, and only what is lost is measured again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))
from _small_model import write_small_model
from _support import BIN, assert_same_bytes, optiq, scratch

PLAN = ["--candidate-bits", "3,4,8", "--protect", "off", "--target-file-bpw", "4.5"]
FLAGS = [*PLAN, "--n-calibration", "9"]


def chunks_in(journal):
    """Chunks that the journal's lines are of."""
    chunks = set()
    for line in journal.read_text().splitlines()[1:]:
        record = json.loads(line)
        chunks.update(range(record["chunk"], record["chunk"] + len(record["kl"])))
    return chunks


def shares_lead_to_the_same_bytes(small, tmp, form):
    flags = [*FLAGS, "--sensitivity", form]
    alone = {"OPTIQ_CACHE_DIR": str(tmp / f"{form}_alone")}
    optiq("convert", small, "-o", tmp / f"{form}_whole", *flags, env=alone)
    cache = tmp / f"{form}_shared"
    shared = {"OPTIQ_CACHE_DIR": str(cache)}
    for share in ("1/3", "3/3"):
        text, _ = optiq("convert", small, *flags, "--shard", share, "--json", tmp / "share.json",
                        env=shared)
        assert "3 of 9 chunks" in text, text
        told = json.loads((tmp / "share.json").read_text())
        assert told["end_chunk"] - told["first_chunk"] == 3, told
    folder = cache / "sensitivity"
    first, last = sorted(folder.glob("*-of-3.jsonl"))
    assert chunks_in(first) == {0, 1, 2} and chunks_in(last) == {6, 7, 8}
    optiq("convert", small, "-o", tmp / f"{form}_joined", *flags, env=shared)
    assert_same_bytes(tmp / f"{form}_whole", tmp / f"{form}_joined")
    own = folder / f"{first.name.split('.')[0]}.jsonl"
    assert chunks_in(own) == {3, 4, 5}, chunks_in(own)


def a_killed_share_goes_on(small, tmp):
    cache = tmp / "killed"
    environment = {**os.environ, "OPTIQ_CACHE_DIR": str(cache)}
    command = [BIN, "convert", small, *PLAN, "--sensitivity", "fast", "--n-calibration", "200",
               "--shard", "1/1"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    journals = []
    while time.monotonic() < end and process.poll() is None:
        journals = list(cache.glob("sensitivity/*.jsonl"))
        if journals and len(chunks_in(journals[0])) >= 5:
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = journals[0].read_bytes()
    before = before[: before.rindex(b"\n") + 1]
    optiq(*command[1:], env=environment)
    assert journals[0].read_bytes().startswith(before)


def what_is_refused(small, tmp):
    _, error = optiq("convert", small, *FLAGS, "--shard", "4/3", expect=2)
    assert "--shard 4/3" in error and "I/N" in error, error
    _, error = optiq("convert", small, *FLAGS, "--shard", "1/3", "-o", tmp / "no", expect=2)
    assert "--shard" in error and "--output" in error, error


def main():
    with scratch() as folder:
        tmp = Path(folder)
        small = tmp / "small"
        write_small_model(small)
        for form in ("fast", "exact"):
            shares_lead_to_the_same_bytes(small, tmp, form)
        a_killed_share_goes_on(small, tmp)
        what_is_refused(small, tmp)
    print("ok")


if __name__ == "__main__":
    main()
