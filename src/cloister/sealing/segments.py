"""Cut a stream of chunks of any sizes into segments of fixed sizes, marking the last one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

Buffer = bytes | bytearray | memoryview


def cut_segments(chunks: Iterable[Buffer], first: int, rest: int) -> Iterator[tuple[memoryview, bool]]:
    """Yield (segment, is_last): one segment of ``first`` bytes, then segments of ``rest`` bytes, then the remainder.

    The last segment holds 1 byte to a full segment; it is empty only when the whole input is. A yielded view is valid
    until the next one is asked for: its memory is reused, and wiped at the end. Whole segments inside one chunk are
    not copied.
    """
    held = bytearray(max(first, rest))
    store = memoryview(held)
    used, limit = 0, first
    try:
        for chunk in chunks:
            view = memoryview(chunk).cast("B")
            # A full segment leaves only when a byte beyond it is seen: until then it may be the last.
            while len(view):
                if used == limit:
                    yield store[:limit], False
                    used, limit = 0, rest
                elif used == 0 and len(view) > limit:
                    yield view[:limit], False
                    view, limit = view[limit:], rest
                else:
                    taken = min(limit - used, len(view))
                    store[used : used + taken] = view[:taken]
                    used += taken
                    view = view[taken:]
        yield store[:used], True
    finally:
        store[:] = bytes(len(store))
