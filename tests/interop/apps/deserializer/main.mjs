// Reads protected data with iExec's deserializer, as an iApp in JavaScript does, and says what it found in result.json.
//
// Each argument is one thing to read: MODE/PATH:TYPE, MODE being optimistic, borsh or legacy. `MODE@FILE/PATH:TYPE` reads
// another file of /iexec_in. Answers are { type, value } (integers as text, bytes as hex) or { error }.
import { writeFileSync } from 'node:fs';
import { IExecDataProtectorDeserializer } from '@iexec/dataprotector-deserializer';

const { IEXEC_IN, IEXEC_OUT } = process.env;

function shown(value) {
  if (value instanceof Uint8Array || value instanceof ArrayBuffer) return { type: 'bytes', value: Buffer.from(value).toString('hex') };
  return { type: typeof value, value: typeof value === 'bigint' ? String(value) : value };
}

const found = {};
for (const wanted of process.argv.slice(2)) {
  const [, mode, file, path, type] = /^(\w+)(?:@([^/]+))?\/([^:]*):(.+)$/.exec(wanted);
  try {
    const options = { ...(mode !== 'default' && { mode }), ...(file && { protectedDataPath: `${IEXEC_IN}/${file}` }) };
    found[wanted] = shown(await new IExecDataProtectorDeserializer(options).getValue(path, type));
  } catch (error) {
    found[wanted] = { error: error.message };
  }
}
writeFileSync(`${IEXEC_OUT}/result.json`, JSON.stringify(found));
writeFileSync(`${IEXEC_OUT}/computed.json`, JSON.stringify({ 'deterministic-output-path': `${IEXEC_OUT}/result.json` }));
