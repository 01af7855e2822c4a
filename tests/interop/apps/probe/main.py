"""Says what the platform gave it, in ``/iexec_out/result.json``; secrets as their SHA-256 only.

    --read PATH:TYPE   read an entry of the protected data as this type (iExec's archives name none); may be repeated
    --callback HEX     write callback-data
    --exit CODE        end with this code before anything is written
    --sleep SECONDS    take time first
    --no-computed      forget computed.json
    --directory        make the result a directory of two files
    --stderr TEXT      complain
Other words are only reported, like all of them.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from pathlib import Path

from cloister.datasets.reader import ProtectedDataReader
from cloister.errors import CloisterError


def shown(value):
    """A value as JSON: integers as text (they may need 128 bits), bytes by size and hash."""
    if isinstance(value, bytes):
        return {"size": len(value), "sha256": hashlib.sha256(value).hexdigest(), "head": value[:16].hex()}
    if isinstance(value, int) and not isinstance(value, bool):
        return {"integer": str(value)}
    return value


def read_data(types, index=None):
    """The entries of the protected data, or why there are none."""
    try:
        with ProtectedDataReader(index=index) as reader:
            return {entry.path: shown(reader.read(entry.path, types.get(entry.path))) for entry in reader.entries()}
    except CloisterError as error:
        return {"error": str(error)}


def is_secret(name):
    """Whether a variable holds a secret."""
    return name.startswith(("IEXEC_REQUESTER_SECRET_", "IEXEC_APP_DEVELOPER_SECRET"))


def look(types):
    """Everything that the app can see."""
    environment = {name: value for name, value in os.environ.items() if name.startswith("IEXEC_")}
    folder = Path(os.environ["IEXEC_IN"])
    files = (
        {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()} if folder.is_dir() else {}
    )
    slices = int(os.environ.get("IEXEC_BULK_SLICE_SIZE", "0"))
    return {
        "args": sys.argv[1:],
        "environment": {name: value for name, value in environment.items() if not is_secret(name)},
        "secrets": {
            name: hashlib.sha256(value.encode()).hexdigest() for name, value in environment.items() if is_secret(name)
        },
        "files": {
            name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()
        },
        "data": read_data(types),
        "bulk": [
            {"file": os.environ.get(f"IEXEC_DATASET_{index}_FILENAME"), "data": read_data(types, index)}
            for index in range(1, slices + 1)
        ],
    }


def main():
    """Do what the arguments say."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--read", action="append", default=[])
    parser.add_argument("--callback")
    parser.add_argument("--exit", type=int)
    parser.add_argument("--sleep", type=float, default=0)
    parser.add_argument("--no-computed", action="store_true")
    parser.add_argument("--directory", action="store_true")
    parser.add_argument("--stderr", default="")
    chosen, _ = parser.parse_known_args()
    print("the probe says", *sys.argv[1:], flush=True)
    print(chosen.stderr, file=sys.stderr, flush=True)
    time.sleep(chosen.sleep)
    if chosen.exit is not None:
        raise SystemExit(chosen.exit)
    out = Path(os.environ["IEXEC_OUT"])
    types = dict(item.rpartition(":")[::2] for item in chosen.read)
    result = out / "result.json"
    result.write_text(json.dumps(look(types), sort_keys=True))
    computed = {"deterministic-output-path": str(result)}
    if chosen.directory:
        folder = out / "parts"
        folder.mkdir()
        for name in ("first", "second"):
            (folder / f"{name}.txt").write_text(name)
        computed = {"deterministic-output-path": str(folder)}
    if chosen.callback is not None:
        computed = {"callback-data": chosen.callback}
    if not chosen.no_computed:
        (out / "computed.json").write_text(json.dumps(computed))


main()
