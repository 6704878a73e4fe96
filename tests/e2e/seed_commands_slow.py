"""The original's commands, word for word, against the mock hub."""

from pathlib import Path

from _seed_commands import run_all
from _support import scratch

with scratch() as folder:
    run_all(Path(folder))
