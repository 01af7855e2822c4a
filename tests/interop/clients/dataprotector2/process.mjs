// Running an app on protected data, and opening what it computed.
import { createHash } from 'node:crypto';
import { assert, check, configuration, flow, keepSecret, refuses } from '../../harness.mjs';
import { deployApp, json, listener, offerApp, people, steps, workerpool, ZERO } from './_people.mjs';

const POOL_PRICE = 20_000_000; // what the pool of a local network asks, nRLC
const sha256 = (value) => createHash('sha256').update(value).digest('hex');
const PNG = new Uint8Array([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 1, 2]);
const DATA = { yes: true, num: 1.5, neg: -(2n ** 100n), text: 'héllo', in: { photo: PNG } };
const READ = ['yes:bool', 'num:f64', 'neg:i128', 'text:string', 'in/photo:image/png'].map((one) => `--read ${one}`).join(' ');
const FOUND = {
  yes: true,
  num: 1.5,
  neg: { integer: String(-(2n ** 100n)) },
  text: 'héllo',
  'in/photo': { size: PNG.length, sha256: sha256(PNG), head: Buffer.from(PNG).toString('hex') },
};

await flow(async ({ context }) => {
  const { owner, user, poor, developer } = await people({ owner: {}, user: { stake: '1' }, poor: {}, developer: {} });
  const { core } = user;
  const made = await owner.core.protectData({ name: 'contact', data: DATA });
  const app = await deployApp(developer, context.app);
  const priced = await deployApp(developer, context.app, 'priced');
  const data = made.address.toLowerCase();
  await offerApp(developer, app);
  await offerApp(developer, priced, { appprice: 7 });
  await owner.core.grantAccess({ protectedData: data, authorizedApp: app, authorizedUser: user.address, numberOfAccess: 20 });
  await owner.core.grantAccess({ protectedData: data, authorizedApp: priced, authorizedUser: user.address, pricePerAccess: 5, numberOfAccess: 20 });
  await owner.core.grantAccess({ protectedData: data, authorizedApp: app, authorizedUser: poor.address, numberOfAccess: 20 });
  const request = { protectedData: data, app, workerpool, workerpoolMaxPrice: POOL_PRICE };
  const inputFiles = [`${configuration.iexecOptions.ipfsGatewayURL}/ipfs/${context.app.multiaddr.replace(/^\/ipfs\//, '')}`];

  const refused = async (client, changed, cause) => {
    const error = await refuses(client.processProtectedData({ ...request, ...changed }), 'WorkflowError', 'Failed to process protected data');
    assert.equal(error.cause.message, cause);
  };
  await check('processProtectedData: no order at the price is named by its kind, and nothing is paid', async () => {
    await refused(core, { workerpoolMaxPrice: POOL_PRICE - 1 }, 'No Workerpool order found for the desired price');
    await refused(core, { app: priced, dataMaxPrice: 5, appMaxPrice: 6 }, 'No App order found for the desired price');
    await refused(core, { app: priced, dataMaxPrice: 4, appMaxPrice: 7 }, 'No Dataset order found for the desired price');
    await refused(owner.core, {}, 'No Dataset order found for the desired price');
    assert.equal((await user.iexec.account.checkBalance(user.address)).stake.toNumber(), 1e9);
  });
  await check('processProtectedData: without stake', async () => {
    await refused(poor.core, {}, `Cost per task (${POOL_PRICE}) is greater than requester account stake (0). Orders can't be matched. If you are the requester, you should deposit to top up your account`);
  });
  await check('processProtectedData: wrong input', async () => {
    const invalid = (changed, text) => refuses(core.processProtectedData({ ...request, ...changed }), 'ValidationError', text);
    await invalid({ protectedData: 'x' }, 'protectedData should be an ethereum address');
    await invalid({ app: undefined }, 'app is a required field');
    await invalid({ workerpoolMaxPrice: -1 }, 'workerpoolMaxPrice must be greater than or equal to 0');
    await invalid({ inputFiles: ['ftp:/x'] }, 'ftp:/x should be a url');
    await invalid({ userWhitelist: 'x' }, 'userWhitelist should be an ethereum address');
  });
  await check('processProtectedData: a user whitelist that is no whitelist contract is refused', async () => {
    const error = await refuses(core.processProtectedData({ ...request, userWhitelist: app }), 'WorkflowError', 'Failed to process protected data');
    assert.equal(error.cause.message, `userWhitelist is not a valid whitelist contract, the contract must implement the ERC734 interface`);
  });

  // A client asks every five seconds whether a task ended, so all tasks run at the same time. One wallet makes its deals one
  // after the other: each begins when the former has its deal.
  let turn = Promise.resolve();
  const start = (client, params) => {
    const mine = turn.then(() => {
      const said = listener();
      let running;
      const dealt = new Promise((resolve, reject) => {
        const onStatusUpdate = (status) => {
          said(status);
          if (status.title === 'REQUEST_TO_PROCESS_PROTECTED_DATA' && status.isDone) resolve();
        };
        running = client.processProtectedData({ ...request, ...params, onStatusUpdate });
        running.then(resolve, reject);
      });
      return dealt.then(() => ({ running, said }));
    });
    turn = mine.catch(() => {});
    return mine.then(async ({ running, said }) => ({ ...(await running), said }));
  };
  const everything = start(core, { args: READ, path: 'result.json', secrets: { 1: 'first', 3: 'third' }, inputFiles });
  const costly = start(core, { app: priced, dataMaxPrice: 5, appMaxPrice: 7, path: 'result.json' });
  const generated = start(core, { encryptResult: true, path: 'result.json', args: READ });
  const later = start(core, { waitForResult: false, workerpool: undefined });
  const failing = start(core, { args: '--exit 3' });
  for (const one of [everything, costly, generated, later, failing]) one.catch(() => {});

  await check('processProtectedData: every type of value, arguments, secrets and input files reach the app; the steps in order', async () => {
    const { result, txHash, dealId, taskId, pemPrivateKey, said } = await everything;
    for (const id of [txHash, dealId, taskId]) assert.match(id, /^0x[0-9a-f]{64}$/);
    assert.equal(pemPrivateKey, undefined);
    const seen = json(result);
    assert.deepEqual(seen.data, FOUND);
    assert.deepEqual(seen.args, READ.split(' '));
    assert.deepEqual(seen.secrets, { IEXEC_REQUESTER_SECRET_1: sha256('first'), IEXEC_REQUESTER_SECRET_3: sha256('third') });
    assert.equal(seen.environment.IEXEC_TASK_ID, taskId);
    assert.equal(seen.environment.IEXEC_DATASET_ADDRESS, data);
    assert.equal(seen.environment.IEXEC_INPUT_FILES_NUMBER, '1');
    const { size, sha256: digest } = seen.files[seen.environment.IEXEC_INPUT_FILE_NAME_1];
    assert.ok(size > 0);
    assert.equal(`0x${digest}`, context.app.checksum);
    const titles = said.titles();
    assert.deepEqual(titles.filter((title, place) => titles.indexOf(title) === place), steps(
      'FETCH_ORDERS', 'PUSH_REQUESTER_SECRET', 'REQUEST_TO_PROCESS_PROTECTED_DATA', 'TASK_EXECUTION', 'TASK_RESULT_DOWNLOAD',
    ));
    const dealt = said.payload('REQUEST_TO_PROCESS_PROTECTED_DATA');
    assert.deepEqual([dealt.txHash, dealt.dealId, dealt.taskId], [txHash, dealId, taskId]);
  });
  await check('processProtectedData: app, data and pool are paid what they ask', async () => {
    const { result, dealId } = await costly;
    assert.deepEqual(Object.keys(json(result).data).sort(), Object.keys(FOUND).sort());
    const deal = await user.iexec.deal.show(dealId);
    assert.deepEqual([deal.app.price, deal.dataset.price, deal.workerpool.price].map(Number), [7, 5, POOL_PRICE]);
    const stakes = await Promise.all([developer, owner].map(({ address }) => user.iexec.account.checkBalance(address)));
    assert.deepEqual(stakes.map(({ stake }) => stake.toNumber()), [7, 5]);
  });
  const key = await check('processProtectedData: a sealed result, with a key that the client makes', async () => {
    const { result, pemPrivateKey, taskId, said } = await generated;
    keepSecret(pemPrivateKey);
    assert.match(pemPrivateKey, /^-----BEGIN PRIVATE KEY-----/);
    assert.deepEqual(json(result).data, FOUND);
    for (const title of ['GENERATE_ENCRYPTION_KEY ok', 'PUSH_ENCRYPTION_KEY ok', 'TASK_RESULT_DECRYPT ok']) assert.ok(said.titles().includes(title), title);
    return { taskId, pemPrivateKey };
  });
  const own = start(core, { encryptResult: true, pemPrivateKey: key?.pemPrivateKey, path: 'result.json' });
  own.catch(() => {});
  await check('waitForTaskCompletion: of a run that was not waited for; says what changes', async () => {
    const { taskId, dealId, result } = await later;
    assert.equal(result, undefined);
    const said = listener();
    assert.deepEqual(await core.waitForTaskCompletion({ taskId, dealId, onStatusUpdate: said }), { status: 'COMPLETED', success: true });
    assert.ok(said.titles().every((title) => title.startsWith('TASK_UPDATED')));
    assert.ok(said.titles().length > 0);
    await refuses(core.waitForTaskCompletion({ taskId }), 'ValidationError', 'dealId is a required field');
    await refuses(core.waitForTaskCompletion({ taskId: '0x12', dealId }), 'ValidationError', /taskId/);
  });
  await check("processProtectedData: where no workerpool is named, the network's own stands in for iExec's", async () => {
    const deal = await user.iexec.deal.show((await later).dealId);
    assert.equal(deal.workerpool.pointer.toLowerCase(), workerpool.toLowerCase());
  });
  await check('getResultFromCompletedTask: one file, or the whole archive; a file that is not there', async () => {
    const { taskId } = await later;
    const said = listener();
    const one = await core.getResultFromCompletedTask({ taskId, path: 'result.json', onStatusUpdate: said });
    assert.equal(json(one.result).environment.IEXEC_TASK_ID, taskId);
    assert.deepEqual(said.titles(), steps('TASK_RESULT_DOWNLOAD'));
    const whole = await core.getResultFromCompletedTask({ taskId });
    assert.equal(Buffer.from(whole.result).subarray(0, 2).toString(), 'PK');
    await refuses(core.getResultFromCompletedTask({ taskId, path: 'x' }), 'Error', 'Failed to process task result');
    await refuses(core.getResultFromCompletedTask({ taskId: `0x${'12'.repeat(32)}` }), 'Error', 'Failed to process task result');
    await refuses(core.getResultFromCompletedTask({}), 'ValidationError', 'taskId is a required field');
  });
  await check('getResultFromCompletedTask: a sealed result needs its key', async () => {
    const { taskId, pemPrivateKey } = key;
    assert.deepEqual(json((await core.getResultFromCompletedTask({ taskId, pemPrivateKey, path: 'result.json' })).result).data, FOUND);
    await refuses(core.getResultFromCompletedTask({ taskId }), 'Error', 'Failed to process task result');
  });
  await check('processProtectedData: an app that fails: its result says so', async () => {
    const { result, taskId } = await failing;
    assert.equal(Buffer.from(result).subarray(0, 2).toString(), 'PK');
    const { result: text } = await core.getResultFromCompletedTask({ taskId, path: 'error.txt' });
    assert.match(new TextDecoder().decode(text), /APP_COMPUTE_FAILED/);
  });
  await check('processProtectedData: a sealed result, with a key that the caller has', async () => {
    const { result, pemPrivateKey, said } = await own;
    assert.equal(pemPrivateKey, key.pemPrivateKey);
    assert.equal(said.titles().includes('GENERATE_ENCRYPTION_KEY'), false);
    assert.ok(json(result).data);
  });
  await check('processProtectedData: everything is paid once', async () => {
    const { stake, locked } = await user.iexec.account.checkBalance(user.address);
    assert.deepEqual([stake.toNumber(), locked.toNumber()], [1e9 - 6 * POOL_PRICE - 12, 0]);
  });
});
