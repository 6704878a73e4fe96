"""A program on a terminal of its own: keys in, what it shows out."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time


class Terminal:
    def __init__(self, *command, env=None, width=100):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))

        def own_terminal():
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

        self.child = subprocess.Popen(
            [str(c) for c in command], stdin=slave, stdout=slave, stderr=slave,
            preexec_fn=own_terminal,
            env={**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8", **(env or {})},
        )
        os.close(slave)
        self.text = ""  # all that was shown
        self.seen = 0  # of it, what a wait has found

    def press(self, keys):
        os.write(self.master, keys.encode())

    def wait_for(self, text, seconds=60):
        """Waits until this is shown, after what was waited for before."""
        end = time.monotonic() + seconds
        while (at := self.text.find(text, self.seen)) < 0:
            left = end - time.monotonic()
            assert left > 0, (text, self.text)
            assert self.read(left), (text, self.text)
        self.seen = at + len(text)

    def read(self, seconds):
        ready, _, _ = select.select([self.master], [], [], seconds)
        if not ready:
            return True
        try:
            piece = os.read(self.master, 1 << 16)
        except OSError:  # how Linux tells the end
            return False
        self.text += piece.decode(errors="replace").replace("\r\n", "\n")
        return bool(piece)

    def end(self, seconds=60):
        """Exit status, when the program has ended."""
        end = time.monotonic() + seconds
        while self.read(1):
            if time.monotonic() > end:
                self.child.kill()
                raise AssertionError(f"still running: {self.text[-2000:]}")
        code = self.child.wait(timeout=seconds)
        os.close(self.master)
        return code
