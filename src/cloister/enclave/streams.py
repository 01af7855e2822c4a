"""What an iApp printed and how it exited, and who may know (abuse case 64)."""

from __future__ import annotations

from dataclasses import dataclass

from cloister.protocol.releases import Release, ResultFormat

_WITHHELD = "[cloister] what the app printed is withheld: {reason}\n"


@dataclass(frozen=True, slots=True)
class Streams:
    """The last of both streams, and the exit code; None when the iApp did not run."""

    stdout: str = ""
    stderr: str = ""
    exit_code: int | None = None

    def for_requester(self, release: Release) -> dict[str, bytes]:
        """Files for the result, where they may be in it.

        What an iApp prints may hold what it was given. That is not the requester's to read when it was another's, nor
        the world's when the result is not sealed.
        """
        public = release.result_format is ResultFormat.PLAIN and bool(release.requester_secrets)
        if self.exit_code is None or _holds_foreign_secret(release) or public:
            return {}
        return {"stdout.txt": self.stdout.encode(errors="replace"), "stderr.txt": self.stderr.encode(errors="replace")}

    def for_host(self, release: Release) -> dict[str, object]:
        """What host and scheduler may read, and the requester of them: all of it when no party keeps anything secret in
        this task, else only that it is withheld.
        """
        if self.exit_code is None:
            return {"stdout": "", "stderr": "[cloister] the app did not run\n"}
        if _holds_foreign_secret(release) or release.requester_secrets:
            return {"stdout": "", "stderr": _WITHHELD.format(reason="the task was given protected data or secrets")}
        if release.result_format is not ResultFormat.PLAIN:
            return {"stdout": "", "stderr": _WITHHELD.format(reason="the result is sealed to its requester")}
        return {"stdout": self.stdout, "stderr": self.stderr, "exit_code": self.exit_code}


def _holds_foreign_secret(release: Release) -> bool:
    """Whether another than the requester has something secret in this task."""
    return release.dataset is not None or release.bulk is not None or release.app_secret is not None
