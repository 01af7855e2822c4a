// What the flows of this package share: clients as users make them, and the order's parts that every flow needs.
import { randomBytes } from 'node:crypto';
import { IExec, utils } from 'iexec8';
import { configuration, context } from '../../harness.mjs';

/** A client as a person, with any option changed. */
export function as(person, options = {}) {
  const signer = utils.getSignerFromPrivateKey(configuration.ethProvider, person.key);
  return new IExec({ ethProvider: signer }, { ...configuration.iexec8Options, ...options });
}

/** A client without a wallet. */
export function reader(options = {}) {
  return new IExec({ ethProvider: configuration.ethProvider }, { ...configuration.iexec8Options, ...options });
}

export const bytes32 = () => '0x' + randomBytes(32).toString('hex');

/** The framework part of an app that asks for SCONE, as this package wants it. */
export const SCONE = {
  framework: 'SCONE',
  version: 'v5',
  entrypoint: 'python3 /app/main.py',
  heapSize: 1073741824,
  fingerprint: '01ba4719c80b6fe911b091a7c05124b64eeece964e09c058ef8f9805daca546b',
};

/** Members of an app that is the probe; with a framework part it is a SCONE app. */
export const probe = (owner, name = 'probe', mrenclave = undefined) => ({
  owner: owner.address,
  name,
  type: 'DOCKER',
  multiaddr: context.app.multiaddr,
  checksum: context.app.checksum,
  ...(mrenclave && { mrenclave }),
});

export const text = (value) => value.toString();
