"""Trainings that tests start, watch, end and compare."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))
from _support import BIN, run

TASKS = Path(__file__).parent.parent.parent / "tools" / "make_training_task.py"
ADAPTER = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapters.safetensors",
    "optiq_lora_config.json",
)
LOG = "train_log.jsonl"
STATE = "training_state.safetensors"


def make_task(folder, task, **counts):
    flags = [word for name, n in counts.items() for word in (f"--{name}", n)]
    run(sys.executable, TASKS, task, folder, *flags)
    return folder


class Training:
    """`optiq lora train` in a process of its own."""

    def __init__(self, model, data, output, *flags, **options):
        command = [BIN, "lora", "train", model, "--data", data, "-o", output, *flags]
        self.process = subprocess.Popen(
            [str(word) for word in (*command, "--progress", "json")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def wait(self, expect=0):
        """(stdout, stderr) of one that ends by itself."""
        out, err = self.process.communicate(timeout=1500)
        assert self.process.returncode == expect, (self.process.returncode, out, err[-2000:])
        return out, err

    def end_at(self, step, number=signal.SIGKILL):
        """Sends a signal as soon as the step is told of, or later: events come
        no more often than every few seconds. What stderr says then."""
        for line in self.process.stderr:
            event = json.loads(line) if line.startswith("{") else {}
            if event.get("stage") == "train" and event["done"] >= step:
                break
        os.kill(self.process.pid, number)
        _, err = self.process.communicate(timeout=600)
        return err


def train(*arguments, expect=0, **options):
    return Training(*arguments, **options).wait(expect)


def log_of(folder):
    """The steps without their times, which nobody repeats."""
    steps = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    return [{key: value for key, value in step.items() if key != "seconds"} for step in steps]


def expect_same(a, b):
    for name in ADAPTER:
        assert (a / name).read_bytes() == (b / name).read_bytes(), (name, a, b)
    assert log_of(a) == log_of(b), (a, b)


def leftovers(folder):
    """Hidden entries: temporaries that should have gone."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))
