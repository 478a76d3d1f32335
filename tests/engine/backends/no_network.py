"""Run a program that the kernel ends as soon as it, or a child of it, opens a network socket.

    python no_network.py CODE

A seccomp filter: `socket(AF_INET)` and `socket(AF_INET6)` kill the process with SIGSYS, whoever
calls, Python or a library. Linux on x86-64 and AArch64. The filter's words are those of
linux/filter.h, linux/seccomp.h and linux/audit.h.
"""

from __future__ import annotations

import ctypes
import platform
import struct
import sys

_SOCKET = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _KILL_PROCESS = 0x7FFF0000, 0x80000000
_AF_INET, _AF_INET6 = 2, 10
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
SUPPORTED = sys.platform == "linux" and platform.machine() in _SOCKET


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def close_the_network() -> None:
    """From here on, opening a network socket ends the process; children inherit it."""
    architecture, number = _SOCKET[platform.machine()]
    rows = [
        (_LOAD, 0, 0, 4),  # the architecture of the call
        (_JUMP_IF_EQUAL, 0, 5, architecture),
        (_LOAD, 0, 0, 0),  # its number
        (_JUMP_IF_EQUAL, 0, 3, number),
        (_LOAD, 0, 0, 16),  # its first argument, the address family
        (_JUMP_IF_EQUAL, 2, 0, _AF_INET),
        (_JUMP_IF_EQUAL, 1, 0, _AF_INET6),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _KILL_PROCESS),
    ]
    words = b"".join(struct.pack("HBBI", *row) for row in rows)
    buffer = ctypes.create_string_buffer(words, len(words))
    program = _Program(len(rows), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs was refused")
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "the seccomp filter was refused")


if __name__ == "__main__":
    close_the_network()
    exec(compile(sys.argv[1], "<code>", "exec"), {"__name__": "__main__"})
