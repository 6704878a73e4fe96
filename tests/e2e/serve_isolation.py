"""Adapters that ride in one batch do not touch each other; more: serve_isolation_slow.py."""

from pathlib import Path

from _adapters import check_isolation
from _support import scratch

if __name__ == "__main__":
    with scratch() as folder:
        check_isolation(Path(folder), 80, questions=1)
