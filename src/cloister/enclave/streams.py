"""What an iApp printed, how it exited and what it took, and who may know (abuse case 64)."""

from __future__ import annotations

from dataclasses import dataclass

from cloister.protocol.codec import canonical_json
from cloister.protocol.releases import Release, ResultFormat

USAGE_NAME = "usage.json"
_WITHHELD = "[cloister] what the app printed is withheld: {reason}\n"


@dataclass(frozen=True, slots=True)
class Streams:
    """The last of both streams, the exit code (None when the iApp did not run), and what it took."""

    stdout: str = ""
    stderr: str = ""
    exit_code: int | None = None
    seconds: float = 0.0
    peak_memory_bytes: int = 0

    def for_requester(self, release: Release, *, room: int) -> dict[str, bytes]:
        """Files for the result, where they may be in it: what was printed, and ``usage.json``.

        What an iApp prints may hold what it was given. That is not the requester's to read when it was another's who did
        not allow it, nor the world's when the result is not sealed. Where somebody did allow it, all of it fits into
        ``room``, the bytes that their limit leaves: of what is too much the end is kept, of ``stderr`` first.
        """
        foreign = _holds_foreign_secret(release)
        plain = release.result_format is ResultFormat.PLAIN
        if self.exit_code is None or (foreign and not release.logs):
            return {}
        if plain and (foreign or release.requester_secrets):
            return {}
        files = {
            USAGE_NAME: self._usage(),
            "stderr.txt": self.stderr.encode(errors="replace"),
            "stdout.txt": self.stdout.encode(errors="replace"),
        }
        return _fitted(files, room) if foreign else files

    def for_host(self, release: Release) -> dict[str, object]:
        """What host and scheduler may read, and the requester of them: all of it when no party keeps anything secret in
        this task, else only that it is withheld. An owner's word allows no more of it: the host is not the requester.
        """
        if self.exit_code is None:
            return {"stdout": "", "stderr": "[cloister] the app did not run\n"}
        if _holds_foreign_secret(release) or release.requester_secrets:
            return {"stdout": "", "stderr": _WITHHELD.format(reason="the task was given protected data or secrets")}
        if release.result_format is not ResultFormat.PLAIN:
            return {"stdout": "", "stderr": _WITHHELD.format(reason="the result is sealed to its requester")}
        return {"stdout": self.stdout, "stderr": self.stderr, "exit_code": self.exit_code}

    def _usage(self) -> bytes:
        return canonical_json(
            {
                "seconds": round(self.seconds, 3),
                "peak_memory_bytes": self.peak_memory_bytes,
                "exit_code": self.exit_code,
            }
        )


def _holds_foreign_secret(release: Release) -> bool:
    """Whether another than the requester has something secret in this task."""
    return release.dataset is not None or release.bulk is not None or release.app_secret is not None


def _fitted(files: dict[str, bytes], room: int) -> dict[str, bytes]:
    """The files cut to their ends, so that all together take at most ``room`` bytes; what has no room is left out."""
    fitted: dict[str, bytes] = {}
    for name, content in files.items():
        if name == USAGE_NAME and len(content) > room:
            continue
        kept = content[max(0, len(content) - room) :] if room > 0 else b""
        fitted[name] = kept
        room -= len(kept)
    return fitted
