"""Memory at the same addresses in every process, so that a builder gives the same bytes.

TensorRT-RTX numbers internal tensors while it walks through hash tables whose keys are pointers.
The numbers, and now and then the size of an engine, so depend on where ``malloc`` and ``mmap``
put things: on address-space randomisation, on what the process did before, and on the order in
which threads happen to run. :func:`run_fixed` takes all of that out of a build, with means that
every user of Linux has:

- Every gap above one address is reserved, with memory that cannot be touched and costs nothing.
  Linux gives out addresses downwards, so all that is mapped afterwards lies below that address,
  in the order in which it is asked for; where libraries lay before no longer matters.
- The build, with the loading of the runtime's libraries, runs in a new thread. The GNU C library
  gives it an arena of its own, below that address, which holds nothing yet.
- Threads keep no free memory of their own (``tcache_count=0``) and take large pieces from their
  arena as well (``mmap_threshold``): :data:`MALLOC`, which is read when a process starts.
- All threads take turns on one processor as a batch job: a thread that is woken waits until the
  other one sleeps, so which of the two frees what they share is always the same. Other programs
  on that processor can still come between them; if it had to wait for them for more than a
  tenth of the time, that is said.
- Python's garbage collector is off, and Python has memory in stock for its small objects.

How Linux lays out memory: ``arch_pick_mmap_layout`` in ``mm/util.c``; its wake-up rules for batch
jobs: sched(7), ``SCHED_BATCH``; arenas: mallopt(3), "Memory Allocation Tunables" in the manual
of the GNU C library.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from samrt.quoting import one_line

__all__ = [
    "MALLOC",
    "MOST_WAITING",
    "STACK_BYTES",
    "Span",
    "gaps",
    "read_spans",
    "run_fixed",
    "start_of_gaps",
]

MALLOC = "glibc.malloc.tcache_count=0:glibc.malloc.mmap_threshold=33554432"
"""Value of ``GLIBC_TUNABLES`` that :func:`run_fixed` needs."""
STACK_BYTES = 8 * 2**20
"""Limit on the stack (``ulimit -s``) that it needs: threads get as much, and none means another
order of addresses."""

MOST_WAITING = 0.1
"""Most of the time that a build may wait for the processor and still count as undisturbed."""

Result = TypeVar("Result")
Span = tuple[int, int, str]
"""First address, address after the last one, name or ``""``."""

_OLDEST_GLIBC = (2, 26)  # tunables
_THREAD_STACK_BYTES = 64 * 2**20
_BELOW_STACK = 64 * 2**20  # the stack grows into it; Linux maps nothing there
_USER_SPACE_END = 1 << 56  # above it is what belongs to Linux itself, on every processor
_PROT_NONE, _PRIVATE, _ANONYMOUS, _NORESERVE, _FIXED_NOREPLACE = 0, 0x2, 0x20, 0x4000, 0x100000
_SMALL, _STOCK, _KEPT = 400, 40_000, 1000  # 17 MB in objects of 400 bytes; one in 1000 stays


def run_fixed(work: Callable[[], Result]) -> tuple[Result, str | None]:
    """Call a function with memory at the same addresses as last time; once in a process.

    What it imports and allocates must depend on its input alone. Where the conditions cannot be
    met it is called all the same.

    Returns:
        Its result, and why addresses were not fixed; ``None`` if they were.

    Raises:
        BaseException: whatever ``work`` raises.
    """
    found: list[Result] = []
    raised: list[BaseException] = []
    waited: list[float] = []

    def run() -> None:
        start = time.perf_counter()
        try:
            found.append(work())
        except BaseException as exc:  # raised again in the calling thread
            raised.append(exc)
        waited.append(_waited_s() / max(time.perf_counter() - start, 1e-9))

    kept = _small_objects()
    gc.collect()
    gc.disable()
    threading.stack_size(_THREAD_STACK_BYTES)
    thread = threading.Thread(target=run, name="samrt-build")
    problem = _what_is_missing() or _one_processor() or _fill_gaps()
    thread.start()
    thread.join()
    gc.enable()
    del kept
    if raised:
        raise raised[0]
    if problem is None and waited[0] > MOST_WAITING:
        problem = (
            f"other programs had the processor for {waited[0]:.0%} of the time: build again when "
            "the machine is less busy"
        )
    return found[0], problem


def _small_objects() -> list[bytes]:
    """Fill Python's own memory and free most of it: later objects need no new memory from Linux."""
    return [bytes(_SMALL) for _ in range(_STOCK)][::_KEPT]


def _what_is_missing() -> str | None:
    if sys.platform != "linux":
        return f"addresses can be fixed on Linux only, this is {sys.platform}"
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (OSError, ValueError):
        name, version = "", ""
    numbers = tuple(int(part) for part in version.split(".") if part.isdecimal())
    if name != "glibc" or numbers < _OLDEST_GLIBC:
        return "addresses can be fixed with the GNU C library from 2.26 on only"
    if os.environ.get("GLIBC_TUNABLES") != MALLOC:
        return f"GLIBC_TUNABLES is not {MALLOC}"
    import resource

    soft = resource.getrlimit(resource.RLIMIT_STACK)[0]
    if soft != STACK_BYTES:
        return f"the stack is limited to {soft} bytes (ulimit -s), not to {STACK_BYTES}"
    return None


def _one_processor() -> str | None:
    """All threads on one processor, without being interrupted by one that wakes up."""
    if sys.platform != "linux":
        return None
    here = ctypes.CDLL(None).sched_getcpu()  # where Linux has put a new process is the least busy
    try:
        os.sched_setaffinity(0, {here})
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except (OSError, ValueError) as exc:
        return f"Linux does not let this process choose how it is scheduled ({one_line(exc)})"
    return None


def _waited_s() -> float:
    """Seconds that this thread wanted to run and could not; 0.0 where the system does not say."""
    try:
        with open("/proc/thread-self/schedstat", encoding="ascii") as file:  # noqa: PTH123
            return int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def _fill_gaps() -> str | None:
    """Leave Linux no free address above a fixed one; why that did not work, or ``None``."""
    libc = ctypes.CDLL(None, use_errno=True)
    mmap = libc.mmap
    mmap.restype = ctypes.c_void_p
    mmap.argtypes = [
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
    ]  # fmt: skip
    kind = _PRIVATE | _ANONYMOUS | _NORESERVE
    try:
        with open("/proc/self/maps", encoding="ascii", errors="replace") as file:  # noqa: PTH123
            spans = read_spans(file.read())
    except OSError as exc:
        return f"/proc/self/maps cannot be read ({exc.strerror})"
    start = start_of_gaps(spans)
    for first, end in gaps(spans, start):
        if mmap(first, end - first, _PROT_NONE, kind | _FIXED_NOREPLACE, -1, 0) != first:
            reason = os.strerror(ctypes.get_errno())
            return f"Linux does not let this process reserve addresses ({reason}; ulimit -v?)"
    page = os.sysconf("SC_PAGE_SIZE")
    if mmap(None, page, _PROT_NONE, kind, -1, 0) != start - page:
        return "this Linux does not give out addresses downwards"
    return None


def read_spans(maps: str) -> list[Span]:
    """What is mapped, from the text of ``/proc/self/maps``, upwards; nothing of Linux's own."""
    found = []
    for line in maps.splitlines():
        fields = line.split(maxsplit=5)
        first, end = (int(text, 16) for text in fields[0].split("-"))
        if end <= _USER_SPACE_END:
            found.append((first, end, fields[5] if len(fields) > 5 else ""))
    return found


def start_of_gaps(spans: list[Span]) -> int:
    """The address above which nothing is to stay free.

    An eighth below the end of the address space, which is the power of two above the stack:
    randomisation moves libraries by at most 2 ** 44 of 2 ** 47 bytes, by 2 ** 40 unless the
    machine's owner asks for more, and programs lie lower.
    """
    space = 1 << (spans[-1][1] - 1).bit_length()
    return space - space // 8


def gaps(spans: list[Span], start: int) -> list[tuple[int, int]]:
    """What is free between ``start`` and the stack: first address, address after the last one."""
    found, at = [], start
    for first, end, name in spans:
        if end <= start:
            continue
        until = first - _BELOW_STACK if name == "[stack]" else first
        if until > at:
            found.append((at, until))
        at = max(at, end)
        if name == "[stack]":
            break
    return found
