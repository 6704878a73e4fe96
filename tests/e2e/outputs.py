"""Ways to name an output of convert and kv-cache (a folder) and of report (a
file): what the name leads to is written or kept with a sentence, and nothing
else changes, by a tree of checksums before and after."""

import contextlib
import hashlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))
from _small_model import write_small_model
from _support import BIN, scratch

CONVERT = ["convert", "--method", "uniform", "--bits", "4", "--progress", "none"]
KV_CACHE = ["kv-cache", "--n-samples", "1", "--seq-len", "16", "--progress", "none"]
IS_ROOT = os.geteuid() == 0


def tree(root):
    """Every entry below root: kind, mode and content; links are not followed."""
    entries = {}
    for folder, folders, files in os.walk(os.fsencode(root)):
        for name in folders + files:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            content = b""
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = hashlib.sha256(file.read()).digest()
            entries[os.path.relpath(path, os.fsencode(root))] = (status.st_mode, content)
    return entries


def changes(before, after):
    return {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}


def lies_in(path, place):
    return path == place or path.startswith(place + b"/")


def run(arguments, cwd, prefix=(), env=None, **options):
    return subprocess.run([*prefix, BIN, *arguments], cwd=cwd, capture_output=True, timeout=120,
                          env={**os.environ, **(env or {})}, **options)  # fmt: skip


def without_rights():
    """What makes root meet the modes of files, as everybody else does."""
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if IS_ROOT else []


def remove(root):
    subprocess.run(["chmod", "-R", "u+rwX", root], check=True)
    shutil.rmtree(root)


class World:
    """A folder with a source, an earlier result and things of the user's."""

    def __init__(self, root, source, result):
        self.root = root
        root.mkdir()
        shutil.copytree(source, root / "source")
        (root / "source/sub").mkdir()
        self.result(result, "old")
        for name in ("docs", "shelf/deep", "empty", "home"):
            (root / name).mkdir(parents=True)
        (root / "docs/letter.txt").write_text("Dear reader")
        (root / "file").write_text("mine")
        self.result(result, "home/sub/old")
        self.result(result, "foreign")
        (root / "foreign/notes.txt").write_text("mine")
        self.result(result, "hidden")
        (root / "hidden/.secret").write_text("mine")
        self.result(result, "nested")
        (root / "nested/optiq/mine").mkdir(parents=True)
        self.result(result, "fifo")
        (root / "fifo/README.md").unlink(missing_ok=True)
        os.mkfifo(root / "fifo/README.md")
        (root / "project/src").mkdir(parents=True)
        (root / "project/.git").mkdir()
        for name in ("config.json", "README.md", "src/main.c", ".git/HEAD"):
            (root / "project" / name).write_text("mine")
        (root / "links").mkdir()
        for file in result.rglob("*"):
            if file.is_file():
                link = root / "links" / file.relative_to(result)
                link.parent.mkdir(exist_ok=True)
                link.symlink_to(root / "docs/letter.txt")
        os.mkfifo(root / "pipe")
        for name, goal in (
            ("to-old", "old"), ("to-to-old", "to-old"), ("to-source", "source"),
            ("to-sub", "source/sub"), ("to-docs", "docs"), ("to-deep", "shelf/deep"),
            ("to-new", "shelf/made"), ("loop", "loop"), ("to-file", "file"),
        ):  # fmt: skip
            (root / name).symlink_to(goal)

    def result(self, result, name):
        shutil.copytree(result, self.root / name)


# (name after -o, where the result appears); no --overwrite.
NEW = (
    ("new", "new"),
    ("new/", "new"),
    ("./new", "new"),
    ("new/.", "new"),
    ("new//x//", "new/x"),
    ("deep/er/new", "deep/er/new"),
    ("{root}/new", "new"),
    ("docs/../new", "new"),
    ("to-deep/../new", "shelf/new"),
    ("to-deep/new", "shelf/deep/new"),
    ("to-new", "shelf/made"),
    (".new", ".new"),
    ("a b\n'\"*", "a b\n'\"*"),
    (b"n\xff\xfe", b"n\xff\xfe"),
)
# The same with --overwrite.
REPLACED = (
    ("old", "old"),
    ("old/", "old"),
    ("to-old", "old"),
    ("to-old/.", "old"),
    ("to-to-old", "old"),
    ("docs/../old", "old"),
    ("to-deep/../../old", "old"),
    ("{root}/old", "old"),
    ("empty", "empty"),
    ("links", "links"),
    ("new", "new"),
    ("home/sub/old", "home/sub/old"),
)
# (name, words of the sentence), without --overwrite and with it.
KEPT = (
    ("old", "--overwrite"),
    ("to-old", "--overwrite"),
    ("docs", "--overwrite"),
    ("file", "--overwrite"),
)
REFUSED = (
    ("source", "is or holds the source"),
    ("source/", "is or holds the source"),
    ("source/sub/..", "is or holds the source"),
    ("to-sub/..", "is or holds the source"),
    ("to-source", "is or holds the source"),
    ("to-source/../source", "is or holds the source"),
    ("source/..", "is or holds the source"),
    (".", "is or holds the source"),
    ("{root}", "is or holds the source"),
    ("/", "is or holds the source"),
    ("source/sub", "lies in the source"),
    ("source/new", "lies in the source"),
    ("to-source/new/er", "lies in the source"),
    ("home", "home folder"),
    ("home/sub", "home folder"),
    ("docs", "'letter.txt'"),
    ("to-docs", "'letter.txt'"),
    ("docs/none/..", "'..' behind"),
    ("to-new/../docs", "'..' behind"),
    ("project", "'.git'"),
    ("foreign", "'notes.txt'"),
    ("hidden", "'.secret'"),
    ("nested", "'optiq"),
    ("fifo", "'README.md'"),
    ("file", "found a file"),
    ("to-file", "found a file"),
    ("pipe", "found a file"),
    ("file/", "cannot enter"),
    ("file/..", "cannot enter"),
    ("file/new", "cannot enter"),
    ("loop", "links"),
    ("", "empty name"),
    ("n" * 300, "too long"),
)


class Folders:
    """Runs the cases of one command that writes a folder."""

    def __init__(self, tmp, command, source, result):
        self.command, self.tmp, self.source, self.result_folder = command, tmp, source, result
        self.n_cases = 0

    @contextlib.contextmanager
    def world(self):
        root = self.tmp / f"world{self.n_cases}"
        self.n_cases += 1
        yield World(root, self.source, self.result_folder)
        remove(root)

    def arguments(self, root, name, overwrite):
        if isinstance(name, str):
            name = name.replace("{root}", str(root))
        flag = ["--overwrite"] if overwrite else []
        return [self.command[0], str(root / "source"), *self.command[1:], *flag, "-o", name]

    def env(self, root):
        return {"HOME": str(root / "home/sub"), "OPTIQ_CACHE_DIR": str(self.tmp / "cache")}

    def writes(self, name, place, overwrite):
        with self.world() as world:
            before = tree(world.root)
            done = run(self.arguments(world.root, name, overwrite), world.root,
                       env=self.env(world.root))  # fmt: skip
            assert done.returncode == 0, (name, done)
            after = tree(world.root)
            place = os.fsencode(place)
            made = {place[:i] for i, byte in enumerate(place) if byte == ord("/")}
            for path in changes(before, after):
                assert lies_in(path, place) or (path in made and path not in before), (name, path)
            for file in self.result_folder.rglob("*"):
                path = place + b"/" + os.fsencode(file.relative_to(self.result_folder))
                assert stat.S_IFMT(after[path][0]) == stat.S_IFMT(file.stat().st_mode), (name, path)

    def keeps(self, name, words, overwrite, prefix=(), prepare=None, cwd="."):
        with self.world() as world:
            if prepare:
                prepare(world.root)
            before = tree(world.root)
            done = run(self.arguments(world.root, name, overwrite), world.root / cwd, prefix,
                       env=self.env(world.root))  # fmt: skip
            message = done.stderr.decode(errors="replace")
            assert done.returncode not in (0, 70), (name, done)
            assert words in message, (name, message)
            assert message.startswith("optiq: [") or not name, (name, message)
            assert not changes(before, tree(world.root)), (name, changes(before, tree(world.root)))

    def run_all(self):
        for name, place in NEW:
            self.writes(name, place, overwrite=False)
        for name, place in REPLACED:
            self.writes(name, place, overwrite=True)
        for name, words in KEPT:
            self.keeps(name, words, overwrite=False)
        for name, words in REFUSED:
            self.keeps(name, words, overwrite=True)
        self.keeps(".", "working folder", overwrite=True, cwd="old")
        self.keeps("..", "is or holds the source", overwrite=True, cwd="source")
        self.keeps("weights", "is or holds a part of the source", overwrite=True,
                   prepare=move_weights)  # fmt: skip
        self.permissions()
        self.mounts()
        self.races()

    def permissions(self):
        if IS_ROOT and not shutil.which("setpriv"):
            print("not run: rights of files (root, and no setpriv)")
            return
        for name, mode, words in (
            ("old", 0o000, "Permission denied"),
            ("shelf/new", 0o555, "Permission denied"),
            ("shelf/deep", 0o555, "Permission denied"),
            ("shelf/deep", 0o000, "Permission denied"),
        ):
            def lock(root, place=name.partition("/")[0], mode=mode):
                (root / place).chmod(mode)

            self.keeps(name, words, True, without_rights(), lock)

    def mounts(self):
        """Binds in a mount namespace of the command's own."""
        unshare = ["unshare", "-m"] if IS_ROOT else ["unshare", "-rm"]
        if not shutil.which("unshare") or subprocess.run([*unshare, "true"], check=False).returncode:
            print("not run: mounts (no unshare)")
            return
        for what, where, name in (
            ("docs", "empty", "empty"),
            ("docs/letter.txt", "old/" + sorted(os.listdir(self.result_folder))[0], "old"),
            ("old", "empty", "to-docs/../empty"),
        ):
            script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
            self.keeps(name, "mounted", True, [*unshare, "sh", "-c", script, "sh", what, where])

    def race(self, name, overwrite, act, words):
        """Stops the command between its first look at the target and its last,
        and acts. It may have been faster: then once more."""
        for _ in range(50):
            with self.world() as world:
                if self.was_raced(world.root, name, overwrite, act, words):
                    return
            self.n_cases -= 1
        raise AssertionError(f"{name}: never stopped in time")

    def was_raced(self, root, name, overwrite, act, words):
        target = {path: entry for path, entry in tree(root).items() if lies_in(path, name.encode())}
        process = subprocess.Popen(
            [BIN, *self.arguments(root, name, overwrite)], cwd=root,
            env={**os.environ, **self.env(root)}, stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL)  # fmt: skip
        while process.poll() is None and not list(root.glob(f".{name}.staging-*")):
            time.sleep(0.0002)
        if process.returncode is None:
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        entries = tree(root)
        is_early = list(root.glob(f".{name}.staging-*")) and target == {
            path: entry for path, entry in entries.items() if lies_in(path, name.encode())}
        if is_early:
            act(root)
            entries = {path: e for path, e in tree(root).items() if b".staging-" not in path}
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
        message = process.communicate(timeout=120)[1].decode()
        if is_early:
            assert process.returncode == 2 and words in message, (name, process.returncode, message)
            assert not changes(entries, tree(root)), changes(entries, tree(root))
        return is_early

    def races(self):
        def appears(root):
            (root / "docs").rename(root / "new")

        def appears_empty(root):
            (root / "new").mkdir()

        def becomes_another(root):
            (root / "old").rename(root / "older")
            (root / "docs").rename(root / "old")

        def becomes_a_copy(root):
            (root / "old").rename(root / "older")
            shutil.copytree(root / "older", root / "old")

        def gets_a_file(root):
            (root / "old/notes.txt").write_text("mine")

        def becomes_a_link(root):
            (root / "old").rename(root / "older")
            (root / "old").symlink_to("docs")

        self.race("new", False, appears, "already exists")
        self.race("new", True, appears, "already exists")
        self.race("new", True, appears_empty, "already exists")
        self.race("old", True, becomes_another, "letter.txt")
        self.race("old", True, becomes_a_copy, "changed while")
        self.race("old", True, gets_a_file, "notes.txt")
        self.race("old", True, becomes_a_link, "found a file")


def move_weights(root):
    """The source's weights are a link to a folder that looks like a result."""
    (root / "weights").mkdir()
    shutil.copy(root / "source/config.json", root / "weights")
    weights = root / "source/model.safetensors"
    weights.rename(root / "weights/model.safetensors")
    weights.symlink_to("../weights/model.safetensors")


# --- report -----------------------------------------------------------------

# (name after -o, the file that is written)
PAGES = (
    ("page.html", "page.html"),
    ("./page.html", "page.html"),
    ("{root}/page.html", "page.html"),
    ("docs/../page.html", "page.html"),
    ("docs/page.html", "docs/page.html"),
    ("to-deep/page.html", "shelf/deep/page.html"),
    ("to-deep/../page.html", "shelf/page.html"),
    ("to-new", "shelf/made"),
    ("file", "file"),
    ("to-file", "file"),
    ("source/page.html", "source/page.html"),
    (".page", ".page"),
    ("a b\n'\"*", "a b\n'\"*"),
    (b"n\xff\xfe", b"n\xff\xfe"),
    ("locked", "locked"),
)
NO_PAGES = (
    ("docs", "a folder"),
    ("docs/", "a folder"),
    ("to-docs", "a folder"),
    (".", "a folder"),
    ("/", "a folder"),
    ("new/", "a folder"),
    ("new/.", "a folder"),
    ("absent/page.html", "No such file"),
    ("file/", "cannot enter"),
    ("file/page.html", "cannot enter"),
    ("docs/none/../page.html", "'..' behind"),
    ("loop", "links"),
    ("", "empty name"),
    ("n" * 300, "too long"),
    ("source", "a folder"),
    ("source/config.json", "is read from"),
    ("to-source/model.safetensors", "is read from"),
    ("docs/../source/tokenizer.json", "is read from"),
    ("to-weights", "is read from"),
    ("socket", "No such device"),
    ("/dev/full", "No space left"),
    ("/dev/fd/77", "Bad file descriptor"),
)


class Pages:
    def __init__(self, tmp, source, result):
        self.tmp, self.source, self.result_folder, self.n_cases = tmp, source, result, 0

    @contextlib.contextmanager
    def world(self):
        root = self.tmp / f"pages{self.n_cases}"
        self.n_cases += 1
        world = World(root, self.source, self.result_folder)
        (root / "locked").write_text("old")
        (root / "locked").chmod(0o640)
        (root / "to-weights").symlink_to("source/model.safetensors")
        (root / "to-null").symlink_to("/dev/null")
        (root / "to-pipe").symlink_to("pipe")
        with socket.socket(socket.AF_UNIX) as server:
            here = os.open(root, os.O_RDONLY)
            server.bind(f"/proc/self/fd/{here}/socket")
            os.close(here)
        yield world
        remove(root)

    def report(self, root, name, **options):
        if isinstance(name, str):
            name = name.replace("{root}", str(root))
        return run(["report", str(root / "source"), "-o", name], root, **options)

    def writes(self, name, place):
        with self.world() as world:
            before = tree(world.root)
            done = self.report(world.root, name)
            assert done.returncode == 0, (name, done)
            after = tree(world.root)
            place = os.fsencode(place)
            assert changes(before, after) == {place}, (name, changes(before, after))
            if place in before:
                assert before[place][0] == after[place][0], name
            page = Path(os.fsdecode(os.path.join(os.fsencode(world.root), place)))
            assert page.read_text().startswith("<!DOCTYPE html>"), name

    def keeps(self, name, words, prefix=(), prepare=None):
        with self.world() as world:
            if prepare:
                prepare(world.root)
            before = tree(world.root)
            done = self.report(world.root, name, prefix=prefix)
            message = done.stderr.decode(errors="replace")
            assert done.returncode not in (0, 70), (name, done)
            assert words in message, (name, message)
            assert message.startswith("optiq: [") or not name, (name, message)
            assert not changes(before, tree(world.root)), name

    def passes_through(self, name, read):
        """`read(root, run)` returns what came out of a pipe or a device."""
        with self.world() as world:
            before = tree(world.root)
            page = read(world.root, lambda **options: self.report(world.root, name, **options))
            assert page.startswith(b"<!DOCTYPE html>") and b"</html>" in page, (name, page[:80])
            assert not changes(before, tree(world.root)), name

    def pipes_and_devices(self):
        def from_pipe(root, report):
            got = []
            reader = threading.Thread(target=lambda: got.append((root / "pipe").read_bytes()))
            reader.start()
            assert report().returncode == 0
            reader.join()
            return got[0]

        def from_stdout(root, report):
            done = report()
            assert done.returncode == 0 and b"wrote" in done.stdout, done
            return done.stdout

        def from_descriptor(root, report):
            with open(self.tmp / "log", "wb+") as log:
                os.dup2(log.fileno(), 9)
                done = report(pass_fds=[9])
                os.close(9)
                assert done.returncode == 0, done
            return (self.tmp / "log").read_bytes()

        self.passes_through("pipe", from_pipe)
        self.passes_through("to-pipe", from_pipe)
        self.passes_through("/dev/stdout", from_stdout)
        self.passes_through("/proc/self/fd/1", from_stdout)
        self.passes_through("/dev/fd/9", from_descriptor)
        for name in ("/dev/null", "to-null"):
            before = os.lstat("/dev/null")
            with self.world() as world:
                entries = tree(world.root)
                assert self.report(world.root, name).returncode == 0
                assert not changes(entries, tree(world.root)), name
            assert os.path.samestat(before, os.lstat("/dev/null"))

    def run_all(self):
        for name, place in PAGES:
            self.writes(name, place)
        for name, words in NO_PAGES:
            self.keeps(name, words)
        self.pipes_and_devices()
        if not IS_ROOT or shutil.which("setpriv"):
            for name, place, mode in (("file", "file", 0o444), ("docs/page", "docs", 0o555)):
                def lock(root, place=place, mode=mode):
                    (root / place).chmod(mode)

                self.keeps(name, "Permission denied", without_rights(), lock)
        if IS_ROOT:
            def make_disk(root):
                os.mknod(root / "disk", stat.S_IFBLK | 0o600, os.makedev(7, 250))

            self.keeps("disk", "a disk", prepare=make_disk)


def main():
    with scratch() as folder:
        tmp = Path(folder).resolve()
        source = tmp / "model"
        write_small_model(source)
        for command in (CONVERT, KV_CACHE):
            result = tmp / command[0]
            done = run([command[0], source, *command[1:], "-o", result], tmp,
                       env={"OPTIQ_CACHE_DIR": str(tmp / "cache")})  # fmt: skip
            assert done.returncode == 0, done
            cases = Folders(tmp, command, source, result)
            cases.run_all()
            assert cases.n_cases >= 40
            print(f"{command[0]}: {cases.n_cases} names")
        pages = Pages(tmp, source, result)
        pages.run_all()
        assert pages.n_cases >= 40
        print(f"report: {pages.n_cases} names")


if __name__ == "__main__":
    main()
