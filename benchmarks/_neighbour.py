"""What benchmarks beside a busy machine share."""

import contextlib
import subprocess
import sys


@contextlib.contextmanager
def busy_neighbour():
    """A process that keeps a core busy, as a machine with other work has."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()
