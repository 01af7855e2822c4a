"""Memory for keys: never swapped, in no core dump, in no child, and cleared when the key is done.

What this covers: raw keys that the agent makes itself, in pages that were written by the kernel's generator and are read by
the curve's library where they lie. What it does not cover, because Python and OpenSSL decide: copies in registers and on
the stack while a key is used; OpenSSL's own object of the HPKE key, which it clears when that object is freed; the text of
the release, whose data keys are ordinary Python objects until the agent ends. Those copies are guarded by what guards the
whole process: it is not dumpable, nobody may trace it, its memory is locked where the limit allows (``lock_process``), and it
does one task and dies.

Source: mlock(2), madvise(2), getrandom(2).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
from typing import Self

from cloister.errors import ConfigurationError, LocalError

_MADV_DONTFORK, _MADV_DONTDUMP, _MADV_WIPEONFORK = 10, 16, 18
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4

_libc = ctypes.CDLL(None, use_errno=True)


class LockedBuffer:
    """``size`` bytes in pages of their own. ``repr`` shows nothing of them; not picklable.

    A fork's child finds zeros in their place, or nothing.
    """

    __slots__ = ("_address", "_pages", "size")

    def __init__(self, size: int) -> None:
        """Raises ConfigurationError when the kernel does not lock or hide the pages: keys do not go elsewhere instead."""
        if size <= 0:
            raise LocalError(f"a buffer of {size} bytes holds no key")
        self.size = size
        length = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self._pages = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._pages))
        place = (ctypes.c_void_p(self._address), ctypes.c_size_t(length))
        if _libc.mlock(*place) != 0:
            raise ConfigurationError(
                f"the kernel does not lock {length} bytes for keys: {os.strerror(ctypes.get_errno())}",
                hint="raise the limit on locked memory (ulimit -l) to 64 KiB or more",
            )
        hidden = _libc.madvise(*place, _MADV_DONTDUMP) == 0
        # Older kernels and gVisor know only to leave the pages out of the child.
        apart = _libc.madvise(*place, _MADV_WIPEONFORK) == 0 or _libc.madvise(*place, _MADV_DONTFORK) == 0
        if not (hidden and apart):
            raise ConfigurationError(
                f"the kernel does not keep keys out of dumps and children: {os.strerror(ctypes.get_errno())}",
                hint="Linux 4.14 or newer does",
            )

    @property
    def view(self) -> memoryview:
        """The bytes themselves, writable. They are cleared with this object, also under a view that is still held."""
        return memoryview(self._pages)[: self.size]

    def fill_random(self) -> None:
        """Fill with fresh random bytes, written by the kernel where they stay. Waits until its generator is seeded.

        Raises:
            LocalError: the kernel gives none.
        """
        done = 0
        while done < self.size:
            given = _libc.getrandom(ctypes.c_void_p(self._address + done), ctypes.c_size_t(self.size - done), 0)
            if given < 0 and ctypes.get_errno() != errno.EINTR:
                raise LocalError(f"the kernel gives no random bytes: {os.strerror(ctypes.get_errno())}")
            done += max(given, 0)

    def clear(self) -> None:
        """Overwrite with zeros. May be called again."""
        ctypes.memset(self._address, 0, len(self._pages))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def __del__(self) -> None:
        if hasattr(self, "_address"):
            self.clear()

    def __repr__(self) -> str:
        return f"LockedBuffer({self.size} bytes, hidden)"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("locked memory is not pickled")


def lock_process() -> bool:
    """Keep all of this process out of swap, what it has and what it will have. False where the limit does not allow it.

    Only under no limit at all: under a limit, every later allocation beyond it would fail. Pages are locked when they are
    touched, not before.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if hard != resource.RLIM_INFINITY:
        return False
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
    return bool(_libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) == 0)
