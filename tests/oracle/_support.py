"""Shared by the oracle and e2e scripts: paths, running the tools, KL."""

import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

BIN = os.environ["OPTIQ_BIN"]
MODEL = Path(os.environ["OPTIQ_TEST_MODEL"])
DRIVERS = Path(os.environ["OPTIQ_DRIVER_DIR"])
SHARED = Path(os.environ["OPTIQ_SHARED_DIR"])
SKIPPED = 77  # what ctest takes as "skipped"


def scratch():
    """A temporary folder that is removed at exit of the with block."""
    return tempfile.TemporaryDirectory(dir=os.environ["OPTIQ_SCRATCH_DIR"])


def skip(why):
    print("skipped:", why)
    sys.exit(SKIPPED)


def run(*command, expect=0, stdin=None, env=None):
    """Runs a command and returns (stdout, stderr); fails on another status."""
    done = subprocess.run(
        [str(c) for c in command],
        input=stdin,
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        timeout=1500,
    )
    if done.returncode != expect:
        print("command:", *command)
        print(done.stdout[-2000:])
        print(done.stderr[-2000:], file=sys.stderr)
        raise AssertionError(f"exit status {done.returncode}, expected {expect}")
    return done.stdout, done.stderr


def optiq(*arguments, **options):
    return run(BIN, *arguments, **options)


def files(folder):
    """Paths of all files below a folder, relative to it."""
    return sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())


def assert_same_bytes(a, b):
    assert files(a) == files(b), (files(a), files(b))
    _, different, errors = filecmp.cmpfiles(a, b, files(a), shallow=False)
    assert not different and not errors, (different, errors)


def float32_copy(folder):
    """A folder with the test model's weights in float32, for mlx-lm."""
    import mlx.core as mx  # of no use to scripts without it

    folder.mkdir()
    for shard in MODEL.glob("model*.safetensors"):
        tensors = {k: v.astype(mx.float32) for k, v in mx.load(str(shard)).items()}
        mx.save_safetensors(str(folder / shard.name), tensors)
    shutil.copy(MODEL / "config.json", folder)
    return folder


def mean_kl(reference, logits):
    """Mean over rows of KL(softmax(reference) || softmax(logits)), nats."""
    p = reference.astype(np.float64)
    q = logits.astype(np.float64)
    p = p - np.logaddexp.reduce(p, axis=-1, keepdims=True)
    q = q - np.logaddexp.reduce(q, axis=-1, keepdims=True)
    return float(np.mean(np.sum(np.exp(p) * (p - q), axis=-1)))
