"""Starts a command as systemd does behind a socket unit: listening sockets as descriptors 3 and up, said in the
environment of the very process that the command becomes.

    python -m tests.e2e.activated DESCRIPTOR… -- COMMAND…
"""

from __future__ import annotations

import fcntl
import os
import sys

FIRST = 3


def main() -> None:
    split = sys.argv.index("--")
    given, command = [int(each) for each in sys.argv[1:split]], sys.argv[split + 1 :]
    copies = [fcntl.fcntl(each, fcntl.F_DUPFD, 100) for each in given]  # above all that are about to be replaced
    for number, copy in enumerate(copies):
        os.dup2(copy, FIRST + number)
    names = ":".join(["lptd"] * len(given))
    told = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(given)), "LISTEN_FDNAMES": names}
    os.execve(command[0], command, {**os.environ, **told})  # noqa: S606 - it is the test's own


if __name__ == "__main__":
    main()
