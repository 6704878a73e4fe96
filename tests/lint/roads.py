"""Follows the roads of docs/architecture.md along the includes.

roads.py ROOT reads these paragraphs of the document, indented as here:

    main road: cli/a -> generate/b, generate/c
               -> models/d <- models/e

    lines at COMMIT: base 120, io 340

A file is named without its ending: it stands for its .h, .cpp, _impl.h and
-inl.h. `a -> b` holds when a includes a header of b, `a <- b` (b implements
what a declares) when b includes a header of a; of several files with commas,
each needs one on the other side. A road has at most seven files. Prints each
road with the includes that it follows and, per room, the lines of C++ at that
commit and now; one line per finding, and exits 1 when there is any.
"""

import pathlib
import re
import sys

MOST_FILES = 7
ROADS = ("main", "convert")  # others may be there
ENDINGS = (".h", ".cpp", "_impl.h", "-inl.h")
ROAD = re.compile(r"^ {4}(\w+) road: (.+(?:\n {5,}.+)*)$", re.MULTILINE)
LINES = re.compile(r"^ {4}lines at (\w+): (.+(?:\n {5,}.+)*)$", re.MULTILINE)
INCLUDE = re.compile(r'^\s*#\s*include\s*["<]optiq/([^">]+)[">]', re.MULTILINE)


class Sources:
    """What lies under optiq/."""

    def __init__(self, root):
        self.root = root / "optiq"

    def files_of(self, name):
        paths = (self.root / (name + ending) for ending in ENDINGS)
        return [path for path in paths if path.is_file()]

    def includes(self, name, other):
        """The include by which file `name` reaches file `other`, or None."""
        headers = {other + ending for ending in ENDINGS}
        for path in self.files_of(name):
            for header in INCLUDE.findall(path.read_text(encoding="utf-8")):
                if header in headers:
                    return f"{path.relative_to(self.root)} includes {header}"
        return None

    def lines(self, room):
        paths = (path for ending in ("*.h", "*.cpp") for path in (self.root / room).rglob(ending))
        return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)

    def rooms(self):
        return sorted(path.name for path in self.root.iterdir() if path.is_dir())


def follow(text, sources):
    """Prints the steps of one road; yields its findings."""
    parts = re.split(r" (->|<-) ", text)
    groups = [part.split(", ") for part in parts[::2]]
    names = [name for group in groups for name in group]
    if len(names) > MOST_FILES:
        yield f"{len(names)} files, at most {MOST_FILES}"
    for name in names:
        if not sources.files_of(name):
            yield f"no file optiq/{name}"
    for left, arrow, right in zip(groups, parts[1::2], groups[1:]):
        for name in right:
            pairs = [(other, name) if arrow == "->" else (name, other) for other in left]
            step = next(filter(None, (sources.includes(*pair) for pair in pairs)), None)
            if step:
                print(f"    {step}")
            else:
                yield f"{', '.join(left)} {arrow} {name}: no such include"


def print_lines(commit, counts, sources):
    """Lines of C++ per room, at the commit that the document names and now."""
    before = {room: int(count) for room, count in (item.split() for item in counts.split(","))}
    print(f"lines of C++    {commit:>8}       now")
    rooms = sorted(before.keys() | set(sources.rooms()))
    now = {room: sources.lines(room) for room in rooms}
    for room in rooms:
        print(f"    {room:<12}{before.get(room, 0):>8}{now[room]:>10}")
    print(f"    {'all':<12}{sum(before.values()):>8}{sum(now.values()):>10}")


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    sources = Sources(root)
    text = (root / "docs" / "architecture.md").read_text(encoding="utf-8")
    roads = {name: " ".join(road.split()) for name, road in ROAD.findall(text)}
    lines = LINES.search(text)
    findings = [f"no {name} road" for name in ROADS if name not in roads]
    for name, road in roads.items():
        print(f"{name} road: {road}")
        findings += [f"{name} road: {finding}" for finding in follow(road, sources)]
    if lines:
        print_lines(*lines.groups(), sources)
    else:
        findings.append("no lines of an earlier commit")
    for finding in findings:
        print(f"docs/architecture.md: {finding}")
    print(f"{len(roads)} roads, {len(findings)} findings")
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
