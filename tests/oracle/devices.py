"""The MLX device against the CPU device, both in float32: every family's plain
form at random weights, and two of them through `eval` and `generate` too (all:
devices_slow.py)."""

import sys

from _devices import BOUND, compare_family
from _family_cases import all_cases


def main():
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    worst = {}
    for name, module, config, quantization in all_cases():
        family = name.split(",")[0].split(" ")[0]
        if family not in worst and wanted in name:
            worst[family] = compare_family(
                name, module, config, quantization, [40, 0], commands=family in ("llama", "gemma4_text"))
    bad = {family: kl for family, kl in worst.items() if not kl <= BOUND}
    assert worst and not bad, f"mean KL above {BOUND}: {bad}"


main()
