// Reads protected data: a ZIP archive that the enclave has opened and checked before this program started.
// Layout: PKWARE APPNOTE.TXT, sections 4.3.7, 4.3.12 and 4.3.16. Archives of 4 GiB and more (ZIP64) are refused.

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { inflateRawSync } from "node:zlib";

const END = 0x06054b50;
const END_SIZE = 22;
const DIRECTORY = 0x02014b50;

/** The protected data of this task, or null when it was given none. */
export function openProtectedData() {
  const path = join(process.env.IEXEC_IN, process.env.IEXEC_DATASET_FILENAME);
  return existsSync(path) ? parseArchive(readFileSync(path)) : null;
}

/** The files in `archive` (a Buffer): their `names`, and `read(name)`, which gives a Buffer. */
export function parseArchive(archive) {
  let end = archive.length - END_SIZE;
  while (end >= 0 && archive.readUInt32LE(end) !== END) end -= 1;
  if (end < 0) throw new Error("it is no archive");
  const entries = new Map();
  let at = archive.readUInt32LE(end + 16);
  for (let left = archive.readUInt16LE(end + 10); left > 0; left -= 1) {
    if (archive.readUInt32LE(at) !== DIRECTORY) throw new Error("its directory is damaged or too large");
    const [name, extra, comment] = [28, 30, 32].map((place) => archive.readUInt16LE(at + place));
    entries.set(archive.toString("utf8", at + 46, at + 46 + name), {
      deflated: archive.readUInt16LE(at + 10) === 8,
      packed: archive.readUInt32LE(at + 20),
      header: archive.readUInt32LE(at + 42),
    });
    at += 46 + name + extra + comment;
  }
  return { names: [...entries.keys()], read: (name) => readEntry(archive, entries, name) };
}

function readEntry(archive, entries, name) {
  const entry = entries.get(name);
  if (!entry) throw new Error(`there is no ${name}, there is: ${[...entries.keys()].join(", ")}`);
  const lengths = archive.readUInt16LE(entry.header + 26) + archive.readUInt16LE(entry.header + 28);
  const content = archive.subarray(entry.header + 30 + lengths, entry.header + 30 + lengths + entry.packed);
  return entry.deflated ? inflateRawSync(content) : content;
}
