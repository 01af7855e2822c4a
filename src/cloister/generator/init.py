"""A new project from a template: a folder that ``cloister iapp test`` runs as it is.

A template is a whole project. Only its name is filled in, where ``__NAME__`` stands in its ``iapp.toml``, ``README.md``
and ``package.json``. The project appears at once, by a rename: half a project is never seen.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

from cloister.errors import Conflict, InputError, LocalError, NotFound, quoted
from cloister.protocol.bundles import Manifest

DEFAULT_TEMPLATE = "hello-world"
TEMPLATES = {
    "hello-world": "greets somebody, counts the letters of a protected message (Python, nothing to install)",
    "private-training": "trains a model on a protected table: metrics, plot, model (scikit-learn)",
    "private-inference": "your protected model on somebody's private file: neither sees the other's (numpy)",
    "private-analytics": "SQL over a protected table, answered with noise within a budget (DuckDB, OpenDP)",
    "private-qa": "answers questions from protected documents, with a local embedding model (WordLlama)",
    "web-api": "calls one named web API from inside the enclave, with a secret of the app",
    "javascript": "the hello world in JavaScript (Node)",
    "container": "any program in a container image, in any language",
}
"""Name -> what it shows, in one line."""

_PLACEHOLDER = b"__NAME__"
_NAMED = ("iapp.toml", "README.md", "package.json", "package-lock.json")
_NOISE = ("__pycache__", "build", "node_modules")
_IGNORE = "gitignore"
"""The file beside the templates that becomes ``.gitignore`` of every project."""


@dataclass(frozen=True, slots=True)
class Project:
    """A project that was made. ``files`` are its paths inside ``folder``."""

    name: str
    template: str
    folder: Path
    files: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Return what was made as JSON members."""
        return {
            "name": self.name,
            "template": self.template,
            "folder": str(self.folder),
            "files": list(self.files),
        }


def check_name(name: str) -> str:
    """Return ``name`` if it may be an iApp's. Raises InputError with the manifest's rule."""
    return Manifest(name=name, version="0", entrypoint="main.py").name


def check_template(name: str) -> str:
    """Return ``name`` if there is such a template. Raises NotFound with the list."""
    if name not in TEMPLATES:
        raise NotFound(f"there is no template {quoted(name)}", hint=f"there is: {', '.join(TEMPLATES)}")
    return name


def init_project(name: str, template: str = DEFAULT_TEMPLATE, folder: Path | None = None) -> Project:
    """Make a project called ``name`` in ``folder`` (default: ``name`` in the working directory).

    Raises:
        InputError: a name that no iApp may have, or a folder that cannot be written. NotFound: no such template.
        Conflict: the folder has something in it.
    """
    check_name(name)
    check_template(template)
    target = Path(folder if folder is not None else name).absolute()
    _check_free(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _draft(target.parent) as draft:
            _fill(draft, name, template)
            made = tuple(sorted(path.relative_to(draft).as_posix() for path in draft.rglob("*") if path.is_file()))
            draft.chmod(0o755)
            draft.replace(target)  # takes the place of an empty folder, and of nothing else
    except OSError as error:
        _check_free(target)
        raise InputError(f"{target} cannot be made: {error.strerror}", hint="choose another place: --folder") from error
    return Project(name, template, target, made)


def _check_free(target: Path) -> None:
    if not target.is_symlink() and not target.exists():
        return
    if target.is_symlink() or not target.is_dir():
        raise Conflict(f"{target} is there already and is no folder", hint="choose another place: --folder")
    found = sorted(entry.name for entry in target.iterdir())
    if found:
        shown = ", ".join(quoted(entry) for entry in found[:3]) + (", …" if len(found) > 3 else "")
        raise Conflict(f"{target} is not empty: it has {shown}", hint="choose another place: --folder")


@contextmanager
def _draft(parent: Path) -> Iterator[Path]:
    """A folder beside the target, gone at the end unless it was renamed."""
    draft = Path(tempfile.mkdtemp(prefix=".cloister-init-", dir=parent))
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _fill(draft: Path, name: str, template: str) -> None:
    with as_file(files("cloister.generator") / "templates") as templates:
        source = templates / template
        if not source.is_dir():
            raise LocalError(f"the template {template} is missing from this installation", hint="install cloister anew")
        for path in source.rglob("*"):
            relative = path.relative_to(source)
            if not path.is_file() or any(part in _NOISE or part.startswith(".") for part in relative.parts):
                continue
            content = path.read_bytes()
            if relative.as_posix() in _NAMED:
                content = content.replace(_PLACEHOLDER, name.encode())
            (draft / relative).parent.mkdir(parents=True, exist_ok=True)
            (draft / relative).write_bytes(content)
        (draft / ".gitignore").write_bytes((templates / _IGNORE).read_bytes())
