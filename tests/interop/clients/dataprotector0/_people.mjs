// People who use `@iexec/dataprotector` 0.5: a wallet each, with the client that a user would make, and iExec's own of that
// time (`iexec` 8) for what the client does not offer.
import { IExecDataProtector } from 'dataprotector0';
import { IExec, utils } from 'iexec8';
import { configuration, wallets } from '../../harness.mjs';

export const ZERO = '0x0000000000000000000000000000000000000000';
export const { workerpool } = configuration;

/** people({ owner: {}, reader: { stake: '1' } }) gives { owner: { address, lower, key, signer, protector, iexec } }. */
export async function people(wanted) {
  const funded = await wallets(wanted);
  return Object.fromEntries(Object.entries(funded).map(([name, { address, key }]) => {
    const signer = utils.getSignerFromPrivateKey(configuration.ethProvider, key);
    return [name, {
      address,
      lower: address.toLowerCase(),
      key,
      signer,
      protector: new IExecDataProtector(signer, configuration.dataProtector0Options),
      iexec: new IExec({ ethProvider: signer }, configuration.iexec8Options),
    }];
  }));
}

/** An app of this owner that says it is a SCONE app, as those of that time were. */
export async function deployApp(owner, { multiaddr, checksum }, name = 'probe') {
  const { address } = await owner.iexec.app.deployApp({
    owner: owner.address, name, type: 'DOCKER', multiaddr, checksum,
    mrenclave: { framework: 'SCONE', version: 'v5.9', entrypoint: 'python3 /app/app.py', heapSize: 1073741824, fingerprint: checksum.slice(2) },
  });
  return address.toLowerCase();
}

/** Offer an app to everybody at this price, under SCONE's tag. */
export async function offerApp(owner, app, { appprice = 0, volume = 1000 } = {}) {
  const order = await owner.iexec.order.createApporder({ app, appprice, volume, tag: ['tee', 'scone'] });
  return owner.iexec.order.publishApporder(await owner.iexec.order.signApporder(order));
}

/** Everything that an observable says, until it completes. */
export function messages(observable) {
  return new Promise((resolve, reject) => {
    const seen = [];
    observable.subscribe((message) => seen.push(message), reject, () => resolve(seen));
  });
}
