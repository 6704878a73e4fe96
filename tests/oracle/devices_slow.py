"""As devices.py, of every variant of every family and in more chunks."""

import sys

from _devices import BOUND, compare_family
from _family_cases import all_cases


def main():
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    worst = {
        name: compare_family(name, *case, [512, 33, 1, 0])
        for name, *case in all_cases() if wanted in name
    }
    bad = {name: kl for name, kl in worst.items() if not kl <= BOUND}
    assert worst and not bad, f"mean KL above {BOUND}: {bad}"


main()
