"""Start a program that ends when its parent ends: `leash.py PARENT SIGNAL UID COMMAND…`.

Run as a script by an isolated interpreter, it replaces itself with COMMAND, so the pid stays. It needs no other module
of ours and starts in a few milliseconds. UID -1 keeps the user.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Become the command."""
    parent, death_signal, uid = (int(value) for value in arguments[:3])
    command = arguments[3:]
    if uid >= 0:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    # After the change of user: that would clear it again.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal)
    if os.getppid() != parent:
        sys.exit("the parent ended before the start")
    try:
        os.execvp(command[0], command)  # noqa: S606 - to become the command is the point
    except OSError as failure:
        sys.exit(f"{command[0]}: {failure.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
