// What the flows of this package share: clients as users make them, and things deployed for a flow.
import { randomBytes } from 'node:crypto';
import { IExec, utils } from 'iexec';
import { configuration, context } from '../../harness.mjs';

/** A client as a person, with any option changed. */
export function as(person, options = {}) {
  const signer = utils.getSignerFromPrivateKey(configuration.ethProvider, person.key);
  return new IExec({ ethProvider: signer }, { ...configuration.iexecOptions, ...options });
}

/** A client without a wallet. */
export function reader(options = {}) {
  return new IExec({ ethProvider: configuration.ethProvider }, { ...configuration.iexecOptions, ...options });
}

export const bytes32 = () => '0x' + randomBytes(32).toString('hex');

/** Members of an app that is the probe. */
export const probe = (owner, name = 'probe') => ({
  owner: owner.address,
  name,
  type: 'DOCKER',
  multiaddr: context.app.multiaddr,
  checksum: context.app.checksum,
});

export const text = (value) => value.toString();
