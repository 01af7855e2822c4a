// iExec's clients at the hands of a test in another language: reads one call a line, {id, method, params}, answers
// {id, value} or {id, error: {class, message, cause}}. Methods are those of DataProtector's core, or `iexec.<module>.<method>`.
// Bytes travel as {"$hex"}, big integers as {"$bigint"}. CONTEXT.json holds `configuration` and the wallet's `key`.
import { createInterface } from 'node:readline';
import { readFileSync } from 'node:fs';
import { IExecDataProtectorCore } from '@iexec/dataprotector';
import { IExec, utils } from 'iexec';

const { configuration, key } = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const signer = utils.getSignerFromPrivateKey(configuration.ethProvider, key);
const core = new IExecDataProtectorCore(signer, configuration.dataProtectorOptions);
const iexec = new IExec({ ethProvider: signer }, configuration.iexecOptions);
// What a client logs itself must not look like an answer.
console.log = console.error;

const told = (name, value) => {
  if (value instanceof Uint8Array || value instanceof ArrayBuffer) return { $hex: Buffer.from(value).toString('hex') };
  if (typeof value === 'bigint') return { $bigint: String(value) };
  return value;
};
const heard = (name, value) => {
  if (typeof value?.$hex === 'string') return new Uint8Array(Buffer.from(value.$hex, 'hex'));
  if (typeof value?.$bigint === 'string') return BigInt(value.$bigint);
  return value;
};
const answer = (line) => process.stdout.write(JSON.stringify(line, told) + '\n');

async function call({ id, method, params }) {
  try {
    const [first, module, name] = method.split('.');
    const value = await (first === 'iexec' ? iexec[module][name](...params) : core[first](...params));
    answer({ id, value });
  } catch (error) {
    const { message: cause } = error.cause ?? {};
    answer({ id, error: { class: error.constructor.name, message: error.message, cause } });
  }
}

for await (const line of createInterface({ input: process.stdin })) call(JSON.parse(line, heard));
