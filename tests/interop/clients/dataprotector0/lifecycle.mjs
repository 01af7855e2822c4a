// Everything that `@iexec/dataprotector` 0.5 does: protect, list, grant, run, revoke, give away. Its apps are SCONE's.
import { createDecipheriv, createHash } from 'node:crypto';
import { getWeb3Provider, IExecDataProtector } from 'dataprotector0';
import { assert, check, configuration, deadUrl, flow, refuses, until } from '../../harness.mjs';
import { deployApp, messages, offerApp, people, workerpool, ZERO } from './_people.mjs';

const POOL_PRICE = 20_000_000; // what the pool of a local network asks, nRLC
const SCONE = `0x${'0'.repeat(63)}3`;
const sha256 = (value) => createHash('sha256').update(value).digest('hex');
const PNG = new Uint8Array([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 1, 2]);
const DATA = { yes: true, no: false, num: -42, text: 'héllo', in: { photo: PNG } };
const SCHEMA = { yes: 'boolean', no: 'boolean', num: 'number', text: 'string', in: { photo: 'image/png' } };
const READ = '--read yes:boolean --read no:boolean --read num:number --read text:string';
const entry = async (response, name) =>
  JSON.parse(await (await (await import('jszip')).default.loadAsync(await response.arrayBuffer())).file(name).async('string'));

await flow(async ({ context }) => {
  const { owner, user, poor, developer } = await people({ owner: {}, user: { stake: '1' }, poor: {}, developer: {} });
  const { protector, iexec } = owner;
  const app = await deployApp(developer, context.app);
  await offerApp(developer, app, { appprice: 7 });

  const refused = async (action, text, original) => {
    const error = await refuses(action, 'WorkflowError', text);
    assert.equal(error.originalError?.message, original);
  };
  const made = await check('protectData: every type of value; the content is what the key opens', async () => {
    const made = await protector.protectData({ name: 'contact', data: DATA });
    assert.deepEqual([made.name, made.owner, made.schema], ['contact', owner.address, SCHEMA]);
    assert.match(made.transactionHash, /^0x[0-9a-f]{64}$/);
    const { dataset } = await iexec.dataset.showDataset(made.address);
    assert.equal(dataset.owner, owner.address);
    const cid = dataset.datasetMultiaddr.replace(/^\/(p2p|ipfs)\//, '');
    const sealed = new Uint8Array(await (await fetch(`${configuration.iexec8Options.ipfsGatewayURL}/ipfs/${cid}`)).arrayBuffer());
    assert.equal(dataset.datasetChecksum, `0x${sha256(sealed)}`);
    const cipher = createDecipheriv('aes-256-cbc', Buffer.from(made.encryptionKey, 'base64'), sealed.subarray(0, 16));
    assert.deepEqual(Buffer.concat([cipher.update(sealed.subarray(16)), cipher.final()]), Buffer.from(made.zipFile));
    assert.equal(await iexec.dataset.checkDatasetSecretExists(made.address), true);
    return made;
  });
  const data = made.address.toLowerCase();
  const second = await check('protectDataObservable: says every step', async () => {
    const seen = await messages(protector.protectDataObservable({ name: 'second', data: { a: 'x' } }));
    assert.deepEqual(seen.map(({ message }) => message), [
      'DATA_SCHEMA_EXTRACTED', 'ZIP_FILE_CREATED', 'ENCRYPTION_KEY_CREATED', 'FILE_ENCRYPTED', 'ENCRYPTED_FILE_UPLOADED',
      'PROTECTED_DATA_DEPLOYMENT_REQUEST', 'PROTECTED_DATA_DEPLOYMENT_SUCCESS', 'PUSH_SECRET_TO_SMS_REQUEST', 'PUSH_SECRET_TO_SMS_SUCCESS',
    ]);
    assert.deepEqual(seen[0].schema, { a: 'string' });
    assert.match(seen[4].cid, /^Qm\w{44}$/);
    assert.equal(seen[5].owner, owner.address);
    assert.equal(await iexec.dataset.checkDatasetSecretExists(seen[6].address), true);
    assert.deepEqual(seen.slice(7).map(({ teeFramework }) => teeFramework), ['scone', 'scone']);
    return seen[6].address.toLowerCase();
  });
  await check('protectData, protectDataObservable: what cannot be packed', async () => {
    await refuses(protector.protectData({ data: { a: null } }), 'ValidationError', 'data is not valid: Unsupported null data');
    await refuses(protector.protectData({ data: { a: 1n } }), 'ValidationError', 'data is not valid: Unsupported bigint data');
    await refused(protector.protectData({ data: { a: 1.5 } }), 'Failed to serialize data object', 'Unsupported non safe integer number');
    await refused(messages(protector.protectDataObservable({ data: { a: 1.5 } })), 'Failed to serialize data object', 'Unsupported non safe integer number');
  });
  await check('protectData: a dead storage node', async () => {
    const lost = new IExecDataProtector(owner.signer, { ...configuration.dataProtector0Options, ipfsNode: deadUrl });
    await refuses(lost.protectData({ data: { a: 'x' } }), 'WorkflowError', 'Failed to upload encrypted data');
  });

  await check('fetchProtectedData: newest first, by owner, by schema, in pages', async () => {
    const listed = { name: 'contact', address: data, owner: owner.lower, schema: SCHEMA, creationTimestamp: made.creationTimestamp };
    const mine = await protector.fetchProtectedData({ owner: owner.address });
    assert.deepEqual(mine.map(({ address }) => address), [second, data]);
    assert.deepEqual(mine[1], listed);
    assert.deepEqual(await protector.fetchProtectedData({ owner: owner.address, requiredSchema: { num: 'number', in: { photo: 'image/png' } } }), [listed]);
    assert.deepEqual(await protector.fetchProtectedData({ owner: owner.address, requiredSchema: { num: 'string' } }), []);
    assert.deepEqual(await protector.fetchProtectedData({ owner: user.address }), []);
    assert.deepEqual((await protector.fetchProtectedData({ owner: owner.address, page: 1, pageSize: 10 })), []);
    assert.ok((await protector.fetchProtectedData()).some(({ address }) => address === data));
  });

  const granted = await check('grantAccess: under SCONE\'s tag, as the app is', async () => {
    const granted = await protector.grantAccess({ protectedData: data, authorizedApp: app, authorizedUser: user.address, pricePerAccess: 5, numberOfAccess: 3 });
    const { salt, sign, ...rest } = granted;
    assert.deepEqual(rest, {
      dataset: data, datasetprice: '5', volume: '3', tag: SCONE, apprestrict: app, workerpoolrestrict: ZERO, requesterrestrict: user.lower,
    });
    return granted;
  });
  const poors = await check('grantAccess: once and free unless said otherwise; the same again is refused; no app, neither', async () => {
    const granted = await protector.grantAccess({ protectedData: data, authorizedApp: app, authorizedUser: poor.address });
    assert.deepEqual([granted.datasetprice, granted.volume], ['0', '1']);
    await refused(protector.grantAccess({ protectedData: data, authorizedApp: app, authorizedUser: user.address }), 'An access has been already granted to this user with this app');
    await refused(protector.grantAccess({ protectedData: data, authorizedApp: user.address, authorizedUser: user.address }), 'Failed to detect the app TEE framework');
    return granted;
  });
  await check('fetchGrantedAccess: by data, app and user, strictly or not', async () => {
    const open = async (filter) => {
      const { count, grantedAccess } = await protector.fetchGrantedAccess({ protectedData: data, ...filter });
      assert.equal(count, grantedAccess.length);
      return grantedAccess;
    };
    assert.deepEqual(await open({}), [poors, granted]);
    assert.deepEqual(await open({ authorizedUser: user.address }), [granted]);
    assert.deepEqual(await open({ authorizedApp: app, authorizedUser: poor.address, isUserStrict: true, isAppStrict: true }), [poors]);
    assert.deepEqual(await open({ authorizedUser: developer.address }), []);
    assert.deepEqual(await open({ authorizedApp: poor.address }), []);
    assert.deepEqual((await protector.fetchGrantedAccess({ protectedData: data, page: 1, pageSize: 10 })).grantedAccess, []);
  });

  // This client does nothing without `secrets`, and gives the task's id at once.
  const request = { protectedData: data, app, workerpool, maxPrice: POOL_PRICE + 12, secrets: {} };
  await check('processProtectedData: a price below the sum of app, data and pool; no grant; no stake', async () => {
    const LIMIT = `No orders found within the specified price limit ${POOL_PRICE + 11} nRLC.`;
    const run = (who, changed) => who.protector.processProtectedData({ ...request, ...changed });
    await refused(run(user, { maxPrice: POOL_PRICE + 11 }), LIMIT, LIMIT);
    await refused(run(developer, {}), 'No dataset orders found', 'No dataset orders found');
    const poorly = `Cost per task (${POOL_PRICE + 7}) is greater than requester account stake (0). Orders can't be matched. If you are the requester, you should deposit to top up your account`;
    await refused(run(poor, {}), poorly, poorly);
    assert.equal((await user.iexec.account.checkBalance(user.address)).stake.toNumber(), 1e9);
  });
  const done = (task) => until(`task ${task}`, async () => (await user.iexec.task.show(task).catch(() => ({}))).statusName === 'COMPLETED', { every: 300 });
  const tasks = await check('processProtectedData: at the pool that is named and at any; logs in to the result storage by itself', async () => {
    const named = await user.protector.processProtectedData({ ...request, args: READ, secrets: { 1: 'first', 3: 'third' } });
    await done(named);
    const any = await user.protector.processProtectedData({ ...request, workerpool: 'any' });
    for (const task of [named, any]) assert.match(task, /^0x[0-9a-f]{64}$/);
    return [named, any];
  });
  await check('processProtectedData: the app reads every type of value, gets arguments and secrets; all are paid', async () => {
    await Promise.all(tasks.map(done));
    const [first, other] = await Promise.all(tasks.map(async (task) => entry(await user.iexec.task.fetchResults(task), 'result.json')));
    assert.deepEqual(first.data, {
      yes: true, no: false, num: { integer: '-42' }, text: 'héllo', 'in/photo': { size: PNG.length, sha256: sha256(PNG), head: Buffer.from(PNG).toString('hex') },
    });
    assert.deepEqual(first.args, READ.split(' '));
    assert.deepEqual(first.secrets, { IEXEC_REQUESTER_SECRET_1: sha256('first'), IEXEC_REQUESTER_SECRET_3: sha256('third') });
    assert.equal(other.environment.IEXEC_DATASET_ADDRESS, data);
    const { stake } = await user.iexec.account.checkBalance(user.address);
    assert.equal(stake.toNumber(), 1e9 - 2 * (POOL_PRICE + 12));
    const earned = await Promise.all([owner, developer].map(async ({ address }) => (await user.iexec.account.checkBalance(address)).stake.toNumber()));
    assert.deepEqual(earned, [10, 14]);
  });

  await check('revokeOneAccess: is listed no more; not twice, not by a stranger', async () => {
    const { access, txHash } = await protector.revokeOneAccess(granted);
    assert.deepEqual(access, granted);
    assert.match(txHash, /^0x[0-9a-f]{64}$/);
    assert.deepEqual((await protector.fetchGrantedAccess({ protectedData: data })).grantedAccess, [poors]);
    await refuses(protector.revokeOneAccess(granted), 'WorkflowError', 'Failed to revoke access');
    await refuses(user.protector.revokeOneAccess(poors), 'WorkflowError', 'Failed to revoke access');
  });
  await check('revokeAllAccessObservable: says each', async () => {
    assert.deepEqual(await messages(protector.revokeAllAccessObservable({ protectedData: data, authorizedUser: user.address })), [
      { message: 'GRANTED_ACCESS_RETRIEVED', access: [] },
    ]);
    const seen = await messages(protector.revokeAllAccessObservable({ protectedData: data }));
    assert.deepEqual(seen.map(({ message }) => message), ['GRANTED_ACCESS_RETRIEVED', 'REVOKE_ONE_ACCESS_REQUEST', 'REVOKE_ONE_ACCESS_SUCCESS']);
    assert.deepEqual([seen[0].access, seen[1].access, seen[2].access], [[poors], poors, poors]);
    assert.match(seen[2].txHash, /^0x[0-9a-f]{64}$/);
    assert.equal((await protector.fetchGrantedAccess({ protectedData: data })).count, 0);
  });
  await check('transferOwnership: on chain and in lists', async () => {
    const given = await protector.transferOwnership({ protectedData: data, newOwner: user.address });
    assert.deepEqual([given.address.toLowerCase(), given.to.toLowerCase()], [data, user.lower]);
    assert.deepEqual((await protector.fetchProtectedData({ owner: user.address })).map(({ address }) => address), [data]);
    await refuses(protector.transferOwnership({ protectedData: data, newOwner: owner.address }), 'WorkflowError', 'Failed to transfer protectedData ownership');
  });
  await check('getWeb3Provider: a signer, but bound to the URL of iExec\'s own sidechain, which is not this chain', async () => {
    const signer = getWeb3Provider(user.key);
    assert.equal(await signer.getAddress(), user.address);
    // Nothing may leave this machine in a test; what matters is that the function takes no URL of a chain.
    assert.equal(signer.provider._getConnection().url, 'https://bellecour.iex.ec');
    assert.equal(getWeb3Provider.length, 1);
  });
});
