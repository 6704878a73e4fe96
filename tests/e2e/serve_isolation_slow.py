"""1000 requests, 16 at a time, over five adapters and the model alone: see _adapters.check_isolation."""

from pathlib import Path

from _adapters import check_isolation
from _support import scratch

if __name__ == "__main__":
    with scratch() as folder:
        check_isolation(Path(folder), 1000, questions=6)
