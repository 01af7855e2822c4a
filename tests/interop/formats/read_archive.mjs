// Reads an archive with the reference deserializer: node read_archive.mjs ARCHIVE '[["path","type"],…]'
// Prints a JSON list of {kind, value}; bytes in base64, bigint in decimal.
import { IExecDataProtectorDeserializer } from '@iexec/dataprotector-deserializer';

const [, , protectedDataPath, wanted] = process.argv;
const deserializer = new IExecDataProtectorDeserializer({ protectedDataPath, mode: 'borsh' });
const found = [];
for (const [path, type] of JSON.parse(wanted)) {
  const value = await deserializer.getValue(path, type);
  const bytes = value instanceof Uint8Array;
  found.push({ kind: bytes ? 'bytes' : typeof value, value: bytes ? Buffer.from(value).toString('base64') : String(value) });
}
process.stdout.write(JSON.stringify(found));
