// What every flow starts with: its context, wallets with money, and checks that print one JSON line each.
//
// A flow is `clients/<package>/<name>.mjs`, run as `node <name>.mjs CONTEXT.json`:
//
//   import { flow, wallets, refuses } from '../../harness.mjs';
//   await flow(async ({ context, check }) => {
//     const { alice } = await wallets({ alice: { rlc: '2', stake: '1' } });
//     await check('wallet.getAddress: gives the checksummed address', async () => { ... });
//   });
//
// The text of a check before ':' is the public method that it backs in docs/compatibility.md (several: 'a.x, a.y: words').
// A check that fails does not stop the flow; what it returns is the value of `await check(...)`.
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { Wallet, Interface, parseEther, parseUnits } from 'ethers';

export { assert };
export const context = JSON.parse(readFileSync(process.argv[2], 'utf8'));
/** What `cloister network describe --js` exports. */
export const configuration = context.configuration;
export const network = context.network;

const started = performance.now();
const secrets = new Set([context.bank, ...Object.values(context.operators)]);
let failed = 0;

/** Print text without any key that this flow knows. */
function censored(text) {
  let out = String(text);
  for (const secret of secrets) out = out.replaceAll(secret.replace(/^0x/, ''), '<key>');
  return out;
}

function emit(line) {
  process.stdout.write(censored(JSON.stringify(line)) + '\n');
}

function describe(error) {
  if (!(error instanceof Error)) return inspect(error, { depth: 4 });
  const cause = error.cause ?? error.originalError;
  const place = (error.stack ?? '').split('\n').filter((row) => row.includes('/clients/')).slice(0, 3).join('\n');
  const name = error instanceof assert.AssertionError ? '' : `${error.constructor.name}: `;
  return `${name}${error.message}${cause ? `\ncause: ${describe(cause)}` : ''}\n${place}`.slice(0, 6000);
}

/** Run assertions; print {check, ok, ms, error?}. Gives what `fn` gives; undefined when it failed. */
export async function check(name, fn) {
  const begun = performance.now();
  const took = () => Math.round(performance.now() - begun);
  try {
    const value = await fn();
    emit({ check: name, ok: true, ms: took() });
    return value;
  } catch (error) {
    failed += 1;
    emit({ check: name, ok: false, ms: took(), error: describe(error) });
    return undefined;
  }
}

/** A promise (or function) that must fail with an error of this class and exactly this text (or pattern). Gives the error. */
export async function refuses(action, className, text) {
  let value;
  try {
    value = await (typeof action === 'function' ? action() : action);
  } catch (error) {
    const seen = { class: error?.constructor?.name, text: error?.message };
    if (text instanceof RegExp) {
      assert.equal(seen.class, className, `${seen.class}: ${seen.text}`);
      assert.match(seen.text, text);
    } else {
      assert.deepEqual(seen, { class: className, text });
    }
    return error;
  }
  assert.fail(`not refused; gave ${inspect(value, { depth: 3 }).slice(0, 500)}`);
}

// --- chain, without any client under test ---

let ids = 0;

/** One JSON-RPC call to the chain. */
export async function rpc(method, ...params) {
  const response = await fetch(configuration.ethProvider, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ jsonrpc: '2.0', id: (ids += 1), method, params }),
  });
  const { result, error } = await response.json();
  if (error) throw new Error(`${method}: ${error.message}`);
  return result;
}

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** Look again until `look()` gives something true. */
export async function until(what, look, { ms = 30000, every = 100 } = {}) {
  const end = Date.now() + ms;
  for (;;) {
    const value = await look();
    if (value) return value;
    if (Date.now() > end) throw new Error(`${what}: not seen in ${ms} ms`);
    await sleep(every);
  }
}

/** Wait for a transaction; fails when it was reverted. */
export async function mined(hash) {
  const receipt = await until(`transaction ${hash}`, () => rpc('eth_getTransactionReceipt', hash), { every: 40 });
  assert.equal(receipt.status, '0x1', `transaction ${hash} was reverted`);
  return receipt;
}

const GAS = { gasLimit: 1_000_000n, maxFeePerGas: 100_000_000_000n, maxPriorityFeePerGas: 0n, type: 2 };

/** Send transactions of one key, one after the other in nonce, all at once; waits for all. */
export async function send(key, calls) {
  const wallet = new Wallet(key);
  const [nonce, chainId] = await Promise.all([
    rpc('eth_getTransactionCount', wallet.address, 'pending'), rpc('eth_chainId'),
  ]);
  const hashes = [];
  for (const [place, call] of calls.entries()) {
    const signed = await wallet.signTransaction({ ...GAS, chainId: BigInt(chainId), nonce: Number(nonce) + place, ...call });
    hashes.push(await rpc('eth_sendRawTransaction', signed));
  }
  return Promise.all(hashes.map(mined));
}

const TOKEN = new Interface(['function transfer(address,uint256)', 'function approve(address,uint256)', 'function depositFor(uint256,address)']);
let bank = Promise.resolve();

/**
 * Fresh people with 10 ether each: wallets({ alice: { rlc: '2', stake: '1' } }) gives { alice: { address, key } }, with
 * `rlc` RLC in the wallet and `stake` RLC in the hub's account (both default 0; `ether` default '10').
 */
export async function wallets(wanted) {
  const { rlc: token, hub } = network.contracts;
  const people = Object.fromEntries(Object.keys(wanted).map((name) => {
    const { address, privateKey } = Wallet.createRandom();
    secrets.add(privateKey);
    return [name, { address, key: privateKey }];
  }));
  const total = Object.values(wanted).reduce((sum, { stake = '0' }) => sum + parseUnits(stake, 9), 0n);
  const calls = total ? [{ to: token, data: TOKEN.encodeFunctionData('approve', [hub, total]) }] : [];
  for (const [name, { rlc = '0', stake = '0' }] of Object.entries(wanted)) {
    const [free, staked] = [parseUnits(rlc, 9), parseUnits(stake, 9)];
    if (free) calls.push({ to: token, data: TOKEN.encodeFunctionData('transfer', [people[name].address, free]) });
    if (staked) calls.push({ to: hub, data: TOKEN.encodeFunctionData('depositFor', [staked, people[name].address]) });
  }
  await Promise.all(Object.entries(wanted).map(([name, { ether = '10' }]) =>
    rpc('anvil_setBalance', people[name].address, '0x' + parseEther(ether).toString(16))));
  if (calls.length) {
    const turn = bank.then(() => send(context.bank, calls));
    bank = turn.catch(() => {});
    await turn;
  }
  return people;
}

/** Keep a text (a password, a generated key) out of everything that this flow prints. */
export function keepSecret(text) {
  secrets.add(text);
  return text;
}

/**
 * Use the key of an operator ('deployer': the hub's owner, 'scheduler': owner of the default workerpool) while no other
 * flow does: they share its nonces and its market challenge.
 */
export async function operator(role, use) {
  const lock = join(context.locks, role);
  await until(`the key of ${role}`, () => {
    try {
      mkdirSync(lock);
      return true;
    } catch (error) {
      if (error.code === 'EEXIST') return false;
      throw error;
    }
  }, { ms: 60000, every: 50 });
  try {
    return await use(context.operators[role]);
  } finally {
    rmdirSync(lock);
  }
}

/** A dead service: its URL refuses connections. */
export const deadUrl = 'http://127.0.0.1:9';

/** Run the flow; ends the process: 0 when every check passed. */
export async function flow(main) {
  try {
    await main({ context, configuration, network, check, refuses, wallets, operator });
  } catch (error) {
    failed += 1;
    emit({ check: 'flow', ok: false, ms: Math.round(performance.now() - started), error: `${describe(error)}\n${error?.stack ?? ''}` });
  }
  process.stdout.write('', () => process.exit(failed ? 1 : 0));
}
