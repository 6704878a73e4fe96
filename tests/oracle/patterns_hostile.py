"""Hostile patterns end within their budget; 2,000 more of them are in
patterns_hostile_*_slow.py."""

import sys

from _hostile_patterns import run_hostile

sys.exit(1 if run_hostile(34, 1) else 0)
