"""`optiq doctor` says what this process really uses."""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))
from _support import optiq


def diagnose(**environment):
    return json.loads(optiq("doctor", "--json", env=environment)[0])


def pinned_mlx():
    requirements = Path(os.environ["OPTIQ_SOURCE_DIR"], "tools", "requirements.txt")
    for line in requirements.read_text().splitlines():
        if line.startswith("mlx=="):
            return line.removeprefix("mlx==")
    raise AssertionError("mlx is not pinned")


found = diagnose()
assert found["mlx_built"] == found["mlx_loaded"] == pinned_mlx(), found
assert found["cores"] == len(os.sched_getaffinity(0)), found
memory = Path("/proc/meminfo").read_text().split()
assert 0 < found["available_ram_bytes"] <= found["total_ram_bytes"], found
assert found["total_ram_bytes"] <= 1024 * int(memory[memory.index("MemTotal:") + 1]), found
if sys.platform == "linux":
    assert "openblas" in found["blas"], found

assert found["simd_target"] in found["simd_targets"], found
for target in found["simd_targets"]:
    assert diagnose(OPTIQ_SIMD=target)["simd_target"] == target, target
_, refusal = optiq("doctor", env={"OPTIQ_SIMD": "NO_SUCH_TARGET"}, expect=2)
assert found["simd_target"] in refusal, refusal

lines, _ = optiq("doctor")
for value in (found["mlx_loaded"], found["blas"], found["simd_target"], found["cpu"]):
    assert value in lines, (value, lines)
print("doctor:", found)
