"""The original's commands against the mock hub, with one chunk of calibration
so that they take seconds; seed_commands_slow.py runs them word for word."""

from pathlib import Path

from _seed_commands import run_all
from _support import scratch

with scratch() as folder:
    run_all(Path(folder), "--n-calibration", "1")
