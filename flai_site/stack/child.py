"""Run a command that dies with its parent: `python -I -S child.py PARENT SIGNAL UID GID COMMAND…`.

Rule: after giving up privileges (which would clear it) ask the kernel for SIGNAL when the parent
dies; then look whether the parent is still there, because it may have died before we asked.
A small program instead of `preexec_fn`, which is unsafe in a process with threads. UID and GID
of -1 keep the present ones. Exits 127 with one line when the command cannot be run.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main(argv: list) -> int:
    parent, signal_number, uid, gid = map(int, argv[:4])
    command = argv[4:]
    libc = ctypes.CDLL(None, use_errno=True)
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
        os.chdir("/")
    if libc.prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0) != 0:
        print(f"prctl failed: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
        return 127
    if os.getppid() != parent:
        return 127
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"{command[0]} cannot be run: {error.strerror}", file=sys.stderr)
    return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
