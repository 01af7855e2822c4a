// Protecting data, finding it, giving it away; and what the package exports beside its classes.
import { createDecipheriv, createHash } from 'node:crypto';
import { createArrayBufferFromFile, getWeb3Provider, IExecDataProtector, IExecDataProtectorCore, WorkflowError } from '@iexec/dataprotector';
import { Interface } from 'ethers';
import { assert, check, configuration, deadUrl, flow, refuses, send, until } from '../../harness.mjs';
import { listener, people, steps } from './_people.mjs';

const bytes = (...values) => new Uint8Array(values);
const text = (value) => new TextEncoder().encode(value);
const CONTRACT = new Interface(['function createDatasetWithSchema(address,string,string,bytes,bytes32)']);
const PNG = bytes(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 1, 2);
const DATA = {
  yes: true,
  num: 1.5,
  neg: -1n,
  largest: 2n ** 127n - 1n,
  text: 'héllo',
  empty: '',
  nested: { deep: { a: 'b', 'n-1_x': -0.25 } },
  pdf: text('%PDF-1.7 hello'),
  raw: bytes(1, 2, 3).buffer,
  photo: PNG,
};
const SCHEMA = {
  yes: 'bool',
  num: 'f64',
  neg: 'i128',
  largest: 'i128',
  text: 'string',
  empty: 'string',
  nested: { deep: { a: 'string', 'n-1_x': 'f64' } },
  pdf: 'application/pdf',
  raw: 'application/octet-stream',
  photo: 'image/png',
};

/** As much of the browsers' class as reads a file whole. */
class FileReader extends EventTarget {
  readAsArrayBuffer(blob) {
    blob.arrayBuffer().then((buffer) => {
      this.result = buffer;
      const event = new Event('load');
      this.dispatchEvent(event);
      this.onload?.(event);
    });
  }
}

await flow(async () => {
  const { owner, heir } = await people({ owner: {}, heir: {} });
  const { core, iexec } = owner;

  const status = listener();
  const contact = await check('protectData: every type of value, names of the steps in order, content as it says', async () => {
    const made = await core.protectData({ data: DATA, name: 'everything', onStatusUpdate: status });
    assert.deepEqual(made.schema, SCHEMA);
    assert.equal(made.name, 'everything');
    assert.equal(made.owner, owner.address);
    assert.match(made.transactionHash, /^0x[0-9a-f]{64}$/);
    const cid = made.multiaddr.replace(/^\/p2p\//, '');
    assert.deepEqual(status.titles(), steps(
      'EXTRACT_DATA_SCHEMA', 'CREATE_ZIP_FILE', 'CREATE_ENCRYPTION_KEY', 'ENCRYPT_FILE', 'UPLOAD_ENCRYPTED_FILE',
      'DEPLOY_PROTECTED_DATA', 'PUSH_SECRET_TO_SMS',
    ));
    assert.equal(status.payload('CREATE_ENCRYPTION_KEY').encryptionKey, made.encryptionKey);
    assert.equal(status.payload('UPLOAD_ENCRYPTED_FILE').cid, cid);
    const deployed = status.payload('DEPLOY_PROTECTED_DATA');
    assert.deepEqual([deployed.address, deployed.owner, deployed.txHash], [made.address, made.owner, made.transactionHash]);

    const { dataset } = await iexec.dataset.showDataset(made.address);
    const sealed = new Uint8Array(await (await fetch(`${configuration.iexecOptions.ipfsGatewayURL}/ipfs/${cid}`)).arrayBuffer());
    assert.equal(dataset.datasetChecksum, '0x' + createHash('sha256').update(sealed).digest('hex'));
    assert.equal(dataset.datasetMultiaddr, made.multiaddr);
    assert.equal(dataset.datasetName, 'everything');
    assert.equal(dataset.owner, owner.address);
    const cipher = createDecipheriv('aes-256-cbc', Buffer.from(made.encryptionKey, 'base64'), sealed.subarray(0, 16));
    assert.deepEqual(Buffer.concat([cipher.update(sealed.subarray(16)), cipher.final()]), Buffer.from(made.zipFile));
    assert.equal(await iexec.dataset.checkDatasetSecretExists(made.address), true);
    return made;
  });
  await check('protectData: without a name; two of the same content are two', async () => {
    const [one, two] = [await core.protectData({ data: { a: 'x' } }), await core.protectData({ data: { a: 'x' } })];
    assert.deepEqual([one.name, two.name], ['', '']);
    assert.notEqual(one.address, two.address);
    assert.notEqual(one.encryptionKey, two.encryptionKey);
  });
  await check('protectData: refuses what it cannot pack, before anything is sent', async () => {
    const invalid = (data, why) => refuses(core.protectData({ data }), 'ValidationError', `data is not valid: ${why}`);
    await invalid({ a: null }, 'Unsupported null data');
    await invalid({ a: undefined }, 'Unsupported undefined data');
    await invalid({ a: [1] }, 'Unsupported array data');
    await invalid({ a: () => 1 }, 'Unsupported function data');
    await invalid({ 'a.b': 1 }, 'Unsupported special character in key');
    await invalid({ '': 1 }, 'Unsupported empty key');
    await refuses(core.protectData({}), 'ValidationError', 'data is not valid: Unsupported undefined data');
    await refuses(core.protectData({ data: { a: 'x' }, uploadMode: 'ftp' }), 'ValidationError', 'uploadMode must be one of the following values: ipfs, arweave');
    const unpacked = async (data, why) => {
      const error = await refuses(core.protectData({ data }), 'WorkflowError', 'Failed to serialize data object');
      assert.equal(error.cause.message, why);
    };
    await unpacked({ a: 1 / 0 }, 'Unsupported number value: infinity');
    await unpacked({ a: 2n ** 128n }, 'Unsupported integer value: out of i128 range');
  });
  await check('protectData: uploadMode arweave asks a fixed host outside, which no network of one\'s own can be', async () => {
    // Nothing may leave this machine in a test, so that host is not asked: what matters is that the client has no option for it.
    const asked = [];
    const real = globalThis.fetch;
    globalThis.fetch = (input, init) => {
      const url = new URL(input.url ?? input);
      if (url.hostname === '127.0.0.1') return real(input, init);
      asked.push(url.host);
      return Promise.reject(new TypeError('fetch failed'));
    };
    try {
      const error = await refuses(core.protectData({ data: { a: 'x' }, uploadMode: 'arweave' }), 'WorkflowError', 'Failed to upload encrypted data');
      assert.equal(error.cause.message, 'Failed to add file on Arweave');
    } finally {
      globalThis.fetch = real;
    }
    assert.deepEqual(asked, ['arweave-api.iex.ec']);
  });
  await check('protectData: dead services are named by the step that needed them', async () => {
    const elsewhere = (changed) => new IExecDataProtectorCore(owner.signer, { ...configuration.dataProtectorOptions, ...changed });
    await refuses(elsewhere({ ipfsNode: deadUrl }).protectData({ data: { a: 'x' } }), 'WorkflowError', 'Failed to upload encrypted data');
    const noSms = elsewhere({ iexecOptions: { ...configuration.iexecOptions, smsURL: deadUrl } });
    const error = await refuses(noSms.protectData({ data: { a: 'x' } }), 'WorkflowError',
      "A service in the iExec protocol appears to be unavailable. You can retry later or contact iExec's technical support for help.");
    assert.equal(error.isProtocolError, true);
  });

  const listed = (made) => ({
    name: made.name,
    address: made.address.toLowerCase(),
    owner: made.owner.toLowerCase(),
    schema: made.schema,
    creationTimestamp: made.creationTimestamp,
    multiaddr: made.multiaddr,
  });
  const addresses = async (filter, by = core) => (await by.getProtectedData(filter)).map(({ address }) => address);

  await check('getProtectedData: by address, at once after protecting', async () => {
    assert.deepEqual(await core.getProtectedData({ protectedDataAddress: contact.address }), [listed(contact)]);
    assert.deepEqual(await core.getProtectedData({ protectedDataAddress: contact.address, owner: heir.address }), []);
    assert.deepEqual(await addresses({ protectedDataAddress: '0x' + '12'.repeat(20) }), []);
  });
  const mark = `f${owner.lower.slice(2, 12)}`;
  const many = await check('getProtectedData: by schema: all of them, one of several types, nested', async () => {
    const made = [];
    for (const value of ['text', 2.5, true, 7n]) made.push(await heir.core.protectData({ name: `of ${typeof value}`, data: { [mark]: value, in: { [mark]: 'x' } } }));
    const [text, number, truth, integer] = made.map(({ address }) => address.toLowerCase());
    const by = (requiredSchema) => addresses({ requiredSchema });
    assert.deepEqual(await by({ [mark]: 'string' }), [text]);
    assert.deepEqual(await by({ [mark]: ['string', 'f64'] }), [number, text]);
    assert.deepEqual(await by({ [mark]: ['bool', 'i128'], in: { [mark]: 'string' } }), [integer, truth]);
    assert.deepEqual(await by({ in: { [mark]: 'string' } }), [integer, truth, number, text]);
    assert.deepEqual(await by({ [mark]: 'string', in: { [mark]: 'f64' } }), []);
    assert.deepEqual(await by({ [mark]: 'image/png' }), []);
    return made.map(listed);
  });
  await check('getProtectedData: by owner, newest first, in pages, and after a time', async () => {
    assert.deepEqual(await heir.core.getProtectedData({ owner: heir.address }), [...many].reverse());
    assert.deepEqual(await addresses({ owner: heir.address.toUpperCase().replace('0X', '0x'), requiredSchema: { [mark]: 'bool' } }), [many[2].address]);
    const page = (page, pageSize) => addresses({ owner: heir.address, page, pageSize });
    // A page has ten at least. These have no key, which no list can know.
    const contract = configuration.dataProtectorOptions.dataprotectorContractAddress;
    const calls = Array.from({ length: 8 }, (_, place) => ({
      to: contract,
      data: CONTRACT.encodeFunctionData('createDatasetWithSchema', [heir.address, `more ${place}`, '{"other":"bool"}', '0x', `0x${'11'.repeat(32)}`]),
    }));
    await send(heir.key, calls);
    const all = await until('all are listed', async () => {
      const found = await heir.core.getProtectedData({ owner: heir.address });
      return found.length === 12 && found;
    });
    const newest = all.map(({ address }) => address);
    assert.deepEqual(newest.slice(8), [...many].reverse().map(({ address }) => address));
    assert.deepEqual(await page(0, 10), newest.slice(0, 10));
    assert.deepEqual(await page(1, 10), newest.slice(10));
    assert.deepEqual(await page(2, 10), []);
    await refuses(page(0, 9), 'ValidationError', 'pageSize must be greater than or equal to 10');
    const last = all[0].creationTimestamp;
    assert.deepEqual(await addresses({ owner: heir.address, createdAfterTimestamp: last + 1 }), []);
    assert.deepEqual(
      await addresses({ owner: heir.address, createdAfterTimestamp: last }),
      all.filter(({ creationTimestamp }) => creationTimestamp >= last).map(({ address }) => address),
    );
  });
  await check('getProtectedData: refuses what is no address or type', async () => {
    await refuses(core.getProtectedData({ owner: 'somebody' }), 'ValidationError', 'owner should be an ethereum address');
    await refuses(core.getProtectedData({ protectedDataAddress: '0x12' }), 'ValidationError', 'protectedDataAddress should be an ethereum address');
    await refuses(core.getProtectedData({ requiredSchema: { a: 'float' } }), 'ValidationError', 'requiredSchema is not valid: Unsupported type "float" in schema');
  });
  await check('getProtectedData: a dead indexer', async () => {
    const lost = new IExecDataProtectorCore(owner.signer, { ...configuration.dataProtectorOptions, subgraphUrl: deadUrl });
    await refuses(lost.getProtectedData(), 'WorkflowError', 'Failed to fetch protected data');
  });

  await check('transferOwnership: the new owner is the owner on chain and in lists; the old one may do nothing more', async () => {
    const given = await core.transferOwnership({ protectedData: contact.address, newOwner: heir.address });
    assert.deepEqual([given.address, given.to], [contact.address, heir.address]);
    assert.match(given.txHash, /^0x[0-9a-f]{64}$/);
    assert.equal((await iexec.dataset.showDataset(contact.address)).dataset.owner, heir.address);
    assert.deepEqual(await core.getProtectedData({ protectedDataAddress: contact.address }), [{ ...listed(contact), owner: heir.lower }]);
    assert.equal((await addresses({ owner: owner.address })).includes(contact.address.toLowerCase()), false);
    const error = await refuses(core.transferOwnership({ protectedData: contact.address, newOwner: owner.address }), 'WorkflowError', 'Failed to transfer protectedData ownership');
    assert.equal(error.cause.message, 'Only dataset owner can transfer dataset ownership');
  });

  await check('IExecDataProtector: its core is the same client', async () => {
    const whole = new IExecDataProtector(owner.signer, configuration.dataProtectorOptions);
    assert.ok(whole.core instanceof IExecDataProtectorCore);
    assert.deepEqual(await whole.core.getProtectedData({ protectedDataAddress: contact.address }), [{ ...listed(contact), owner: heir.lower }]);
  });
  await check('IExecDataProtectorCore: without a signer reads and refuses to write; an unknown chain is named', async () => {
    const reader = new IExecDataProtectorCore(configuration.ethProvider, configuration.dataProtectorOptions);
    assert.equal((await reader.getProtectedData({ protectedDataAddress: contact.address })).length, 1);
    await refuses(reader.protectData({ data: { a: 'x' } }), 'Error',
      'Unauthorized method. Please log in with your wallet, you must set a valid provider with a signer.');
  });
  await check('getWeb3Provider: a signer of this network by its chain\'s URL', async () => {
    const signer = getWeb3Provider(heir.key, configuration.ethProvider);
    assert.equal(signer.address, heir.address);
    const theirs = new IExecDataProtectorCore(signer, configuration.dataProtectorOptions);
    const made = await theirs.protectData({ data: { a: 'x' } });
    assert.equal(made.owner, heir.address);
  });
  await check('createArrayBufferFromFile: reads a file with the FileReader of browsers; Node has none', async () => {
    const file = new File([PNG], 'a.png');
    await refuses(createArrayBufferFromFile(file), 'ReferenceError', 'FileReader is not defined');
    globalThis.FileReader = FileReader;
    const made = await core.protectData({ data: { photo: await createArrayBufferFromFile(file) } });
    assert.deepEqual(made.schema, { photo: 'image/png' });
  });
  await check('WorkflowError: is the class of what fails', async () => {
    await assert.rejects(core.transferOwnership({ protectedData: contact.address, newOwner: owner.address }), WorkflowError);
  });
});
