"""Turn this process into another program that dies with its parent: run as a script, between fork and exec.

`tether.py PARENT_PID USER_ID GROUP_ID PROGRAM [ARGUMENT ...]`; user and group `-` mean: stay who we are.
It stands alone (standard library only, started with `-I -S`), because it runs before every child, as who started it.

Linux: prctl(2) PR_SET_PDEATHSIG survives execve(2) but is cleared when credentials change, hence the order below. The
"parent" is the *thread* that forked, so children are started from a thread that lives as long as they should.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522


def _become(libc: ctypes.CDLL, user_id: int, group_id: int) -> None:
    """Give up root, keeping only the right to walk through closed folders.

    PostgreSQL refuses to run as root, and a checkout below a folder like /root is closed to everybody else. Without the
    capability (a container that dropped it) this is a plain change of user: an open folder still works.
    """
    libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(group_id, group_id, group_id)
    os.setresuid(user_id, user_id, user_id)
    mask = 1 << _CAP_DAC_OVERRIDE
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)  # effective, permitted, inheritable; low word, high word
    if libc.capset(header, sets) == 0:
        libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0)


def main(arguments: list[str]) -> None:
    parent, user, group, *command = arguments
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if user != "-":
            _become(libc, int(user), int(group))
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != int(parent):
            sys.exit(1)  # the parent died before the line above: nobody would ever end us
    elif user != "-":
        os.setgroups([])
        os.setgid(int(group))
        os.setuid(int(user))
    try:
        os.execvp(command[0], command)  # noqa: S606 - no shell is the point
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
