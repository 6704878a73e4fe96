"""schemathesis over the OpenAPI file, against the fake model's server."""

import subprocess
import sys
import time
from pathlib import Path

from _server import serving_fake
from _support import scratch

FILE = Path(__file__).parents[2] / "docs" / "openapi.json"
# What the file says is what the validator does: no request that breaks it is taken, and every answer is as
# described. Requests that it allows may be refused: fields may contradict each other. OPTIONS, which browsers ask
# before they ask, is answered before a path is looked at.
CHECKS = ",".join([
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
    "negative_data_rejection", "unsupported_method"])  # fmt: skip


def check_openapi(phases, max_examples):
    """Fails when a check does, or when the server is not as it was."""
    with serving_fake("--max-concurrent", "8", "--max-queue", "256") as server, scratch() as folder:
        st = Path(sys.executable).parent / "st"
        done = subprocess.run(
            [st, "run", FILE, "--url", server.url, "--checks", CHECKS, "--phases", phases, "--max-examples",
             str(max_examples), "--seed", "1", "--workers", "1", "--request-timeout", "60", "--no-color",
             "--continue-on-failure"],
            capture_output=True, text=True, timeout=1500, cwd=folder)  # fmt: skip
        print(done.stdout[-20000:], done.stderr[-2000:])
        assert done.returncode == 0, done.returncode
        assert server.is_alive()
        time.sleep(1)  # the engine's numbers are told after the step that answered
        metrics = server.metrics()
        assert metrics["optiq_engine_restarts_total"] == 0
        assert metrics["optiq_answers_open"] == metrics["optiq_requests_running"] == 0
        failed = [name for name in metrics if 'status="5' in name]
        assert not failed, failed
