// People who use `@iexec/dataprotector` 2: a wallet each, with the client that a user would make, and iExec's own for what
// the client does not offer (deploying apps, publishing app orders, reading the chain).
import { IExecDataProtectorCore } from '@iexec/dataprotector';
import { IExec, utils } from 'iexec';
import { configuration, wallets } from '../../harness.mjs';

export const ZERO = '0x0000000000000000000000000000000000000000';
export const { workerpool } = configuration;

/** people({ owner: {}, reader: { stake: '1' } }) gives { owner: { address, lower, key, signer, core, iexec } }. */
export async function people(wanted) {
  const funded = await wallets(wanted);
  return Object.fromEntries(Object.entries(funded).map(([name, { address, key }]) => {
    const signer = utils.getSignerFromPrivateKey(configuration.ethProvider, key);
    return [name, {
      address,
      lower: address.toLowerCase(),
      key,
      signer,
      core: new IExecDataProtectorCore(signer, configuration.dataProtectorOptions),
      iexec: new IExec({ ethProvider: signer }, configuration.iexecOptions),
    }];
  }));
}

/** An app of this owner: the given bundle, deployed. */
export async function deployApp(owner, { multiaddr, checksum }, name = 'probe') {
  const { address } = await owner.iexec.app.deployApp({ owner: owner.address, name, type: 'DOCKER', multiaddr, checksum });
  return address.toLowerCase();
}

/** Offer an app to everybody at this price. */
export async function offerApp(owner, app, { appprice = 0, volume = 1000 } = {}) {
  const order = await owner.iexec.order.createApporder({ app, appprice, volume, tag: ['tee', 'tdx'] });
  return owner.iexec.order.publishApporder(await owner.iexec.order.signApporder(order));
}

/** Collects what `onStatusUpdate` says; `titles()` are 'TITLE' when it begins and 'TITLE ok' when it is done, `finished()` what is done, once each. */
export function listener() {
  const seen = [];
  const listen = (status) => seen.push(status);
  listen.titles = () => seen.map(({ title, isDone }) => (isDone ? `${title} ok` : title));
  listen.finished = () => [...new Set(seen.filter(({ isDone }) => isDone).map(({ title }) => title))];
  listen.payload = (wanted) => seen.find(({ title, isDone, payload }) => title === wanted && isDone && payload)?.payload;
  return listen;
}

/** 'TITLE', 'TITLE ok' of each, in order. */
export const steps = (...titles) => titles.flatMap((title) => [title, `${title} ok`]);

export const json = (bytes) => JSON.parse(new TextDecoder().decode(bytes));
