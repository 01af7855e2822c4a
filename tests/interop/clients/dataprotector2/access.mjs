// Granting and revoking access, and listing what is granted.
import { assert, check, configuration, flow, refuses } from '../../harness.mjs';
import { deployApp, listener, people, steps, ZERO } from './_people.mjs';

const INFINITE = 9007199254740991;

await flow(async ({ context }) => {
  const { owner, other, user } = await people({ owner: {}, other: {}, user: {} });
  const { core, iexec } = owner;
  const app = await deployApp(owner, context.app);
  const second = await deployApp(owner, context.app, 'second');
  const protect = async (name) => (await core.protectData({ name, data: { a: name } })).address.toLowerCase();
  const [data, free, strict] = [await protect('one'), await protect('two'), await protect('three')];
  const open = async (filter) => {
    const { count, grantedAccess } = await core.getGrantedAccess(filter);
    assert.equal(count, grantedAccess.length);
    return grantedAccess;
  };
  const salts = async (filter) => (await open(filter)).map(({ salt }) => salt).sort();

  const status = listener();
  const paid = await check('grantAccess: a price, a count, a user; what is signed is what is published', async () => {
    const granted = await core.grantAccess({
      protectedData: data, authorizedApp: app, authorizedUser: user.address, pricePerAccess: 3, numberOfAccess: 2, onStatusUpdate: status,
    });
    const { salt, sign, ...rest } = granted;
    assert.deepEqual(rest, {
      dataset: data, datasetprice: '3', volume: '2', tag: '0x' + '0'.repeat(63) + '9', apprestrict: app,
      workerpoolrestrict: ZERO, requesterrestrict: user.lower, remainingAccess: 2,
    });
    assert.match(salt, /^0x[0-9a-f]{64}$/);
    assert.match(sign, /^0x[0-9a-f]{130}$/);
    assert.deepEqual(status.titles(), steps('CREATE_DATASET_ORDER', 'PUBLISH_DATASET_ORDER'));
    assert.deepEqual(await open({ protectedData: data }), [granted]);
    return granted;
  });
  const anyone = await check('grantAccess: once, free, for everybody unless said otherwise', async () => {
    const granted = await core.grantAccess({ protectedData: free, authorizedApp: app, authorizedUser: ZERO });
    assert.deepEqual([granted.datasetprice, granted.volume, granted.requesterrestrict, granted.remainingAccess], ['0', '1', ZERO, 1]);
    return granted;
  });
  const bulk = await check('grantAccess: allowBulk is free and without end', async () => {
    const granted = await core.grantAccess({ protectedData: strict, authorizedApp: app, authorizedUser: user.address, allowBulk: true });
    assert.deepEqual([granted.datasetprice, granted.volume, granted.remainingAccess], ['0', String(INFINITE), INFINITE]);
    return granted;
  });
  await check('grantAccess: the same user and app a second time is refused, another app or user is not', async () => {
    const error = await refuses(core.grantAccess({ protectedData: data, authorizedApp: app, authorizedUser: user.address }), 'WorkflowError', 'Failed to grant access');
    assert.equal(error.cause.message, `An access has been already granted to the user: ${user.lower} with the app: ${app}`);
    await core.grantAccess({ protectedData: data, authorizedApp: second, authorizedUser: user.address });
    await core.grantAccess({ protectedData: data, authorizedApp: app, authorizedUser: other.address, pricePerAccess: 1, numberOfAccess: 10 });
  });
  await check('grantAccess: no app, every app, somebody else\'s data, wrong input', async () => {
    const nothing = await refuses(core.grantAccess({ protectedData: data, authorizedApp: other.address, authorizedUser: user.address }), 'WorkflowError', 'Failed to grant access');
    assert.equal(nothing.cause.message, `Invalid authorized app address ${other.lower}. No app or whitelist smart contract deployed at address.`);
    await refuses(core.grantAccess({ protectedData: data, authorizedApp: ZERO, authorizedUser: user.address }), 'Error',
      `Forbidden to use ${ZERO} as authorizedApp, this would give access to any app`);
    const stranger = await refuses(other.core.grantAccess({ protectedData: free, authorizedApp: app, authorizedUser: user.address }), 'WorkflowError', 'Failed to sign data access');
    assert.equal(stranger.cause.message, 'Invalid order signer, must be the resource owner');
    await refuses(core.grantAccess({ protectedData: 'x', authorizedApp: app, authorizedUser: user.address }), 'ValidationError', 'protectedData should be an ethereum address');
    await refuses(core.grantAccess({ protectedData: data, authorizedApp: app, authorizedUser: user.address, pricePerAccess: -1 }), 'ValidationError', /pricePerAccess/);
    await refuses(core.grantAccess({ protectedData: data, authorizedApp: app, authorizedUser: user.address, numberOfAccess: 0 }), 'ValidationError', /numberOfAccess/);
  });

  await check('getGrantedAccess: by data, app, user; users who are named and users who are not', async () => {
    assert.equal((await open({ protectedData: data })).length, 3);
    assert.equal((await open({ protectedData: data, authorizedApp: app })).length, 2);
    assert.deepEqual(await open({ protectedData: data, authorizedApp: app, authorizedUser: user.address }), [paid]);
    assert.deepEqual(await open({ protectedData: free, authorizedUser: user.address }), [anyone]);
    assert.deepEqual(await open({ protectedData: free, authorizedUser: user.address, isUserStrict: true }), []);
    assert.deepEqual(await salts({ authorizedApp: app, authorizedUser: user.address }), [paid, anyone, bulk].map(({ salt }) => salt).sort());
    assert.deepEqual(await salts({ authorizedApp: app, authorizedUser: user.address, isUserStrict: true }), [paid, bulk].map(({ salt }) => salt).sort());
    assert.deepEqual(await open({ protectedData: data, authorizedApp: other.address }), []);
  });
  await check('getGrantedAccess: bulk only', async () => {
    assert.deepEqual(await open({ authorizedApp: app, bulkOnly: true }), [bulk]);
    assert.deepEqual(await open({ protectedData: data, bulkOnly: true }), []);
  });
  await check('getGrantedAccess: in pages; cheapest first', async () => {
    const crowded = await protect('crowded');
    // The market itself takes them faster than the client, which looks for a former grant before each.
    for (let price = 12; price > 0; price -= 1) {
      const order = await iexec.order.createDatasetorder({ dataset: crowded, datasetprice: price, volume: 1, tag: ['tee', 'tdx'], apprestrict: app });
      await iexec.order.publishDatasetorder(await iexec.order.signDatasetorder(order));
    }
    const page = (page) => core.getGrantedAccess({ protectedData: crowded, page, pageSize: 10 });
    const [one, two, three] = [await page(0), await page(1), await page(2)];
    assert.deepEqual([one.count, two.count, three.count], [12, 12, 12]);
    assert.deepEqual([...one.grantedAccess, ...two.grantedAccess].map(({ datasetprice }) => Number(datasetprice)), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    assert.deepEqual(three.grantedAccess, []);
    await refuses(core.getGrantedAccess({ protectedData: crowded, page: 0, pageSize: 9 }), 'ValidationError', 'pageSize must be greater than or equal to 10');
  });
  await check('getGrantedAccess: from another person\'s client, as anybody sees it', async () => {
    assert.deepEqual((await other.core.getGrantedAccess({ protectedData: free })).grantedAccess, [anyone]);
  });

  await check('revokeOneAccess: closes the order on chain; it is listed no more and may be granted anew', async () => {
    const hash = await iexec.order.hashDatasetorder(paid);
    const { access, txHash } = await core.revokeOneAccess(paid);
    assert.deepEqual(access, paid);
    assert.match(txHash, /^0x[0-9a-f]{64}$/);
    assert.equal((await salts({ protectedData: data })).includes(paid.salt), false);
    const { consumed } = await consumedVolume(iexec, hash);
    assert.equal(consumed, 2n);
    await core.grantAccess({ protectedData: data, authorizedApp: app, authorizedUser: user.address, pricePerAccess: 4 });
  });
  await check('revokeOneAccess: twice, and by a stranger, is refused', async () => {
    const again = await refuses(core.revokeOneAccess(paid), 'WorkflowError', 'Failed to revoke access');
    assert.equal(again.cause.message, 'datasetorder already canceled');
    const stranger = await refuses(other.core.revokeOneAccess(anyone), 'WorkflowError', 'Failed to revoke access');
    assert.match(stranger.cause.message, /.+/);
    assert.deepEqual(await open({ protectedData: free }), [anyone]);
  });
  await check('revokeAllAccess: those of one user, then of one app, then all; with each step', async () => {
    const said = listener();
    const [gone] = await core.revokeAllAccess({ protectedData: data, authorizedUser: other.address, onStatusUpdate: said });
    assert.equal(gone.access.requesterrestrict, other.lower);
    assert.deepEqual(said.titles(), steps('RETRIEVE_ALL_GRANTED_ACCESS', 'REVOKE_ONE_ACCESS'));
    assert.equal(Number(said.payload('RETRIEVE_ALL_GRANTED_ACCESS').grantedAccessCount), 1);
    const bySecond = await core.revokeAllAccess({ protectedData: data, authorizedApp: second });
    assert.deepEqual(bySecond.map(({ access }) => access.apprestrict), [second]);
    const rest = await core.revokeAllAccess({ protectedData: data });
    assert.deepEqual(rest.map(({ access }) => access.datasetprice), ['4']);
    assert.deepEqual(await open({ protectedData: data }), []);
    assert.deepEqual(await core.revokeAllAccess({ protectedData: data }), []);
  });
  await check('transferOwnership: what the former owner granted is gone', async () => {
    await core.transferOwnership({ protectedData: free, newOwner: other.address });
    assert.deepEqual(await open({ protectedData: free }), []);
    const granted = await other.core.grantAccess({ protectedData: free, authorizedApp: app, authorizedUser: user.address });
    assert.deepEqual(await open({ protectedData: free }), [granted]);
  });
});

async function consumedVolume(iexec, hash) {
  const { Contract, JsonRpcProvider } = await import('ethers');
  const { hubAddress } = configuration.iexecOptions;
  const hub = new Contract(hubAddress, ['function viewConsumed(bytes32) view returns (uint256)'], new JsonRpcProvider(configuration.ethProvider));
  return { consumed: await hub.viewConsumed(hash) };
}
