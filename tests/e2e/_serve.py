"""`optiq serve` for the length of a with block."""

import contextlib
import re
import signal
import subprocess
import time

from _support import BIN, MODEL, scratch


@contextlib.contextmanager
def serve(*flags, model=MODEL, env=None):
    """Yields the address. It must end by SIGTERM with exit code 0."""
    with scratch() as folder:
        log_path = f"{folder}/serve.log"
        with open(log_path, "w") as log:
            command = [BIN, "serve", str(model), "--port", "0", *map(str, flags)]
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=env)
        try:
            yield wait_for_address(process, log_path)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                code = process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        with open(log_path) as log:
            assert code == 0, (code, log.read()[-3000:])


def wait_for_address(process, log_path, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        with open(log_path) as log:
            found = re.search(r"^Serving .* at (http\S+)$", log.read(), re.MULTILINE)
        if found:
            return found[1]
        time.sleep(0.05)
    with open(log_path) as log:
        raise AssertionError(f"no address, exit code {process.poll()}: {log.read()[-3000:]}")
