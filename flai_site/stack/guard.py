"""Run a command that starts processes of its own, so that all of them end together.

Rule: the guard leads the process group; on SIGTERM (from the supervisor, or from the kernel when
the supervisor dies: child.py) it kills the whole group, itself included. Else it waits for the
command and exits with its code.
"""

import os
import signal
import subprocess
import sys


def main(command: list) -> int:
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
    code = subprocess.Popen(command).wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
