"""2,000 hostile patterns end within their budget on 1 MB of letters."""

import sys

from _hostile_patterns import run_hostile

sys.exit(1 if run_hostile(2000, 2, ["letters"]) else 0)
