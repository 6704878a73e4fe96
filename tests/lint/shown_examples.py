"""What a document shows as C++ is a file that the install test builds and runs.

shown_examples.py ROOT prints each ```cpp block of README.md and docs/ that is
not, line for line, a file of examples/, and exits 1 when there is any, or no
block at all.
"""

import pathlib
import re
import sys

BLOCK = re.compile(r"^```cpp\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    examples = {path.read_text(encoding="utf-8"): path.name for path in (root / "examples").glob("*.cpp")}
    shown = 0
    bad = 0
    for document in [root / "README.md", *sorted((root / "docs").glob("*.md"))]:
        text = document.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            name = examples.get(match.group(1))
            line = text.count("\n", 0, match.start()) + 1
            place = f"{document.relative_to(root)}:{line}"
            shown += 1
            bad += name is None
            print(f"{place}: {name}" if name else f"{place}: this block is no file of examples/")
    print(f"{shown} blocks, {bad} findings")
    sys.exit(1 if bad or not shown else 0)


if __name__ == "__main__":
    main()
