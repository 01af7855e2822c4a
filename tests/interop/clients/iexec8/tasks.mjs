// Whole runs: a TDX app on encrypted data with secrets and an encrypted result; the same for SCONE; a deal without any tag;
// what never runs is claimed.
import { createHash, generateKeyPairSync, randomUUID } from 'node:crypto';
import JSZip from 'jszip';
import { assert, configuration, context, flow, keepSecret, refuses, until } from '../../harness.mjs';
import { utils } from 'iexec8';
import { as, bytes32, probe, reader, SCONE, text } from './_people.mjs';

const HASH = /^0x[0-9a-f]{64}$/;
const sha256 = (data) => createHash('sha256').update(data).digest('hex');

/** Put bytes where `ipfsNodeURL` says and give their address. */
async function upload(bytes) {
  const form = new FormData();
  form.append('file', new Blob([bytes]));
  const answer = await fetch(new URL('/api/v0/add', configuration.iexec8Options.ipfsNodeURL), { method: 'POST', body: form });
  return `/ipfs/${(await answer.json()).Hash}`;
}

async function entries(archive) {
  const zip = await JSZip.loadAsync(archive);
  return { names: Object.keys(zip.files).sort(), result: JSON.parse(await zip.file('result.json').async('string')) };
}

/** Follow an observable to its end; gives what it said. */
async function said(observable) {
  const source = await observable;
  const messages = [];
  return new Promise((complete, error) => source.subscribe({ next: (value) => messages.push(value), error, complete: () => complete(messages) }));
}

await flow(async ({ check, wallets }) => {
  const { alice, bob, carol, dave, erin, frank, gina, requester, second, third } = await wallets({
    alice: {}, bob: {}, carol: { stake: '1' }, dave: { stake: '0.1' }, erin: {}, frank: {},
    gina: {}, requester: { stake: '0.04' }, second: { stake: '0.1' }, third: { stake: '0.04' },
  });

  /** An app of this framework with data and secrets, offered; gives the orders and what the run must show. */
  async function offer(person, owner, framework, mrenclave) {
    const tag = ['tee', framework];
    const developer = as(person);
    const data = as(owner).dataset;
    const { address: app } = await developer.app.deployApp(probe(person, `eight ${framework}`, mrenclave));
    const appSecret = keepSecret(randomUUID());
    await developer.app.pushAppSecret(app, appSecret, { teeFramework: framework });
    const plain = Buffer.from(`plain bytes for ${framework}`);
    const key = keepSecret(data.generateEncryptionKey());
    const sealed = await data.encrypt(plain, key);
    const { address: dataset } = await data.deployDataset({
      owner: owner.address, name: `eight ${framework}`, multiaddr: await upload(sealed),
      checksum: await data.computeEncryptedFileChecksum(sealed),
    });
    await data.pushDatasetSecret(dataset, key, { teeFramework: framework });
    const apporder = await developer.order.signApporder(await developer.order.createApporder({ app, volume: 100, tag }));
    const { order } = as(owner);
    const datasetorder = await order.signDatasetorder(await order.createDatasetorder({ dataset, volume: 100, tag, apprestrict: app }));
    const { orders } = await reader().orderbook.fetchWorkerpoolOrderbook({
      workerpool: configuration.workerpool, category: 0, minTag: tag, maxTag: tag,
    });
    return { tag, app, dataset, appSecret, plain, apporder, datasetorder, workerpoolorder: orders[0].order };
  }

  async function request({ order }, parts, wanted) {
    const signed = await order.signRequestorder(await order.createRequestorder({
      app: parts.app, workerpool: configuration.workerpool, workerpoolmaxprice: '0.02 RLC', category: 0, tag: parts.tag, ...wanted,
    }));
    return { apporder: parts.apporder, workerpoolorder: parts.workerpoolorder, requestorder: signed,
      ...(wanted.dataset && { datasetorder: parts.datasetorder }) };
  }

  const pair = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const privateKey = pair.privateKey.export({ type: 'pkcs8', format: 'pem' });
  const secretName = randomUUID();
  const secret = keepSecret(randomUUID());

  /** A requester with a secret and a result key. */
  async function prepared(person) {
    const iexec = as(person);
    await iexec.secrets.pushRequesterSecret(secretName, secret);
    await iexec.result.pushResultEncryptionKey(pair.publicKey.export({ type: 'spki', format: 'pem' }).trim());
    return iexec;
  }

  await Promise.all([tdxRun(), sconeRun(), plainRun(), claims()]);

  async function tdxRun() {
    const iexec = await prepared(requester);
    const parts = await offer(alice, bob, 'tdx');
    const orders = await request(iexec, parts, {
      dataset: parts.dataset, volume: 2,
      params: { iexec_args: '--read x:string one two', iexec_secrets: { 1: secretName }, iexec_result_encryption: true },
    });
    const deal = await check('order.matchOrders: app, data, pool and request become a deal', async () => {
      const matched = await iexec.order.matchOrders(orders);
      assert.match(matched.dealid, HASH);
      assert.match(matched.txHash, HASH);
      assert.equal(text(matched.volume), '2');
      return matched;
    });
    const taskid = await check('deal.computeTaskId: the first of two', () => iexec.deal.computeTaskId(deal.dealid, 0));
    await check('deal.show: parties, prices, deadline and tasks', async () => {
      const shown = await reader().deal.show(deal.dealid);
      assert.deepEqual(
        [shown.dealid, shown.app.pointer, shown.dataset.pointer, shown.workerpool.pointer, shown.requester, shown.beneficiary],
        [deal.dealid, parts.app, parts.dataset, configuration.workerpool, requester.address, requester.address],
      );
      assert.deepEqual([text(shown.workerpool.price), text(shown.botFirst), text(shown.botSize), shown.tag],
        ['20000000', '0', '2', utils.encodeTag(parts.tag)]);
      assert.equal(shown.deadlineReached, false);
      assert.equal(text(shown.finalTime), text(shown.startTime.addn(3000)));
      assert.deepEqual(Object.values(shown.tasks), [taskid, await iexec.deal.computeTaskId(deal.dealid, 1)]);
      await refuses(reader().deal.show(bytes32()), 'ObjectNotFoundError', /^No deal found for id 0x[0-9a-f]{64} on chain \d+$/);
    });
    await Promise.all([
      check('task.obsTask: until it is completed', async () => {
        const messages = await said(iexec.task.obsTask(taskid, { dealid: deal.dealid }));
        assert.equal(messages.at(-1).message, 'TASK_COMPLETED');
        assert.equal(messages.at(-1).task.statusName, 'COMPLETED');
      }),
      check('deal.obsDeal: both tasks', async () => {
        const last = (await said(iexec.deal.obsDeal(deal.dealid))).at(-1);
        assert.equal(last.message, 'DEAL_COMPLETED');
        assert.deepEqual([last.tasksCount, last.completedTasksCount, last.failedTasksCount], [2, 2, 0]);
      }),
    ]);
    await check('task.show: completed, with the place of the result', async () => {
      const shown = await reader().task.show(taskid);
      assert.deepEqual([shown.taskid, shown.dealid, shown.status, shown.statusName, shown.taskTimedOut], [taskid, deal.dealid, 3, 'COMPLETED', false]);
      assert.equal(shown.results.storage, 'ipfs');
      assert.match(shown.results.location, /^\/ipfs\/(Qm|baf)/);
      await refuses(reader().task.show(bytes32()), 'ObjectNotFoundError', /^No task found for id 0x[0-9a-f]{64} on chain \d+$/);
    });
    await check('task.fetchResults, utils.decryptResult: only the holder of the RSA key reads it', async () => {
      const sealed = Buffer.from(await (await iexec.task.fetchResults(taskid)).arrayBuffer());
      assert.deepEqual(Object.keys((await JSZip.loadAsync(sealed)).files).sort(), ['aes-key.rsa', 'iexec_out.zip.aes']);
      const opened = await utils.decryptResult(sealed, privateKey);
      const { result } = await entries(opened);
      assert.deepEqual(result.args, ['--read', 'x:string', 'one', 'two']);
      assert.deepEqual(result.secrets, {
        IEXEC_REQUESTER_SECRET_1: sha256(secret), IEXEC_APP_DEVELOPER_SECRET: sha256(parts.appSecret),
        ...('IEXEC_APP_DEVELOPER_SECRET_1' in result.secrets && { IEXEC_APP_DEVELOPER_SECRET_1: sha256(parts.appSecret) }),
      });
      assert.deepEqual(result.files[parts.dataset.toLowerCase()] ?? result.files[parts.dataset], { size: parts.plain.length, sha256: sha256(parts.plain) });
      assert.equal(result.environment.IEXEC_TASK_ID, taskid);
      const other = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ type: 'pkcs8', format: 'pem' });
      await refuses(utils.decryptResult(sealed, other), 'Error', /^Failed to decrypt results key with beneficiary key|decrypt/i);
    });
    await check('deal.fetchRequesterDeals: by app, data and pool', async () => {
      const wanted = { appAddress: parts.app, datasetAddress: parts.dataset, workerpoolAddress: configuration.workerpool };
      const page = await until('the deal in the market', async () => {
        const answer = await iexec.deal.fetchRequesterDeals(requester.address, wanted);
        return answer.count && answer;
      });
      assert.deepEqual([page.count, page.deals[0].dealid, page.deals[0].volume], [1, deal.dealid, 2]);
      assert.equal((await iexec.deal.fetchRequesterDeals(requester.address, { appAddress: configuration.workerpool })).count, 0);
    });
    for (const kind of ['App', 'Dataset', 'Workerpool', 'Request']) {
      await check(`deal.fetchDealsBy${kind}order: by the hash of the order`, async () => {
        const hash = await iexec.order[`hash${kind}order`](orders[`${kind.toLowerCase()}order`]);
        const { count, deals } = await reader().deal[`fetchDealsBy${kind}order`](hash);
        assert.ok(count >= 1);
        assert.ok(deals.some(({ dealid }) => dealid === deal.dealid));
      });
    }
    await check('task.fetchOffchainInfo: what the scheduler knows', async () => {
      const { task, replicates } = await iexec.task.fetchOffchainInfo(taskid);
      assert.equal(task.status, 'COMPLETED');
      assert.ok(task.statusHistory.length > 2);
      assert.equal(replicates.length, 1);
      assert.match(replicates[0].worker, /^0x[0-9a-fA-F]{40}$/);
    });
    await check('account.checkBalance: two tasks were paid, nothing stays locked', async () => {
      const { stake, locked } = await iexec.account.checkBalance(requester.address);
      assert.deepEqual([text(stake), text(locked)], ['0', '0']);
    });
    await check('task.claim: a completed task is not claimed', () => refuses(iexec.task.claim(taskid), 'Error', /claim/));
  }

  async function sconeRun() {
    const iexec = await prepared(second);
    const parts = await offer(erin, frank, 'scone', SCONE);
    const orders = await request(iexec, parts, { dataset: parts.dataset, params: { iexec_args: 'scone words', iexec_secrets: { 1: secretName },
      iexec_result_encryption: true, iexec_result_storage_proxy: configuration.iexec8Options.resultProxyURL } });
    await check('order.matchOrders, task.obsTask, task.fetchResults: SCONE orders run in this network’s enclave, data and secrets included', async () => {
      const { dealid } = await iexec.order.matchOrders(orders);
      const taskid = await iexec.deal.computeTaskId(dealid, 0);
      await said(iexec.task.obsTask(taskid, { dealid }));
      const sealed = await (await iexec.task.fetchResults(taskid)).arrayBuffer();
      const { result } = await entries(await utils.decryptResult(sealed, privateKey));
      assert.deepEqual(result.args, ['scone', 'words']);
      assert.equal(result.secrets.IEXEC_REQUESTER_SECRET_1, sha256(secret));
      assert.equal(result.secrets.IEXEC_APP_DEVELOPER_SECRET, sha256(parts.appSecret));
      assert.deepEqual(Object.values(result.files), [{ size: parts.plain.length, sha256: sha256(parts.plain) }]);
    });
  }

  /** An app with nothing to hide: the host may see what it prints. */
  async function plainRun() {
    const { order } = as(gina);
    const iexec = as(third);
    const { address: app } = await as(gina).app.deployApp(probe(gina, 'eight plain'));
    const tag = ['tee', 'tdx'];
    const match = async (tags) => {
      const apporder = await order.signApporder(await order.createApporder({ app, tag: tags }));
      const { orders: [{ order: workerpoolorder }] } = await iexec.orderbook.fetchWorkerpoolOrderbook({ workerpool: configuration.workerpool, category: 0, minTag: tag });
      const requestorder = await iexec.order.signRequestorder(
        await iexec.order.createRequestorder({ app, category: 0, workerpoolmaxprice: '0.02 RLC', params: 'only words', tag: tags }));
      const { dealid } = await iexec.order.matchOrders({ apporder, workerpoolorder, requestorder });
      return { dealid, taskid: await iexec.deal.computeTaskId(dealid, 0) };
    };
    const { dealid, taskid } = await match(tag);
    await check('task.fetchOffchainInfo: a deal without any tag asks for no enclave, and is told so at once', async () => {
      const without = await match([]);
      assert.equal((await iexec.deal.show(without.dealid)).tag, utils.NULL_BYTES32);
      const ended = await until('RUNNING_FAILED', async () => {
        const info = await iexec.task.fetchOffchainInfo(without.taskid).catch(() => null);
        return info?.task.status === 'RUNNING_FAILED' ? info : null;
      });
      assert.match(ended.replicates[0].statusHistory.at(-1).cause, /^TEE_SESSION_REFUSED: the deal does not ask for an enclave/);
    });
    await said(iexec.task.obsTask(taskid, { dealid }));
    await check('task.fetchResults: a result that nobody seals is a zip', async () => {
      const { names, result } = await entries(await (await iexec.task.fetchResults(taskid)).arrayBuffer());
      assert.deepEqual(result.args, ['only', 'words']);
      assert.ok(names.includes('stdout.txt'), names.join());
    });
    await check('task.fetchOffchainInfo: with the app’s exit code', async () => {
      const { replicates } = await until('COMPLETED', async () => {
        const info = await iexec.task.fetchOffchainInfo(taskid);
        return info.replicates[0]?.status === 'COMPLETED' ? info : null;
      });
      assert.deepEqual(replicates.map(({ exitCode, status }) => [exitCode, status]), [[0, 'COMPLETED']]);
    });
    await check('task.fetchLogs: the requester reads what the app printed, others do not', async () => {
      const [{ stdout, worker }] = await iexec.task.fetchLogs(taskid);
      assert.match(stdout, /^the probe says only words\n/);
      assert.match(worker, /^0x[0-9a-fA-F]{40}$/);
      await refuses(as(bob).task.fetchLogs(taskid), 'Error', `Only task requester ${third.address} can access replicates logs`);
    });
  }

  /** A workerpool of which nobody runs tasks: after ten clocks the money comes back. */
  async function claims() {
    const idle = as(carol);
    const { address: workerpool } = await idle.workerpool.deployWorkerpool({ owner: carol.address, description: 'idle' });
    const { address: app } = await as(dave).app.deployApp(probe(dave, 'eight never runs'));
    const { order: theirs } = as(dave);
    const apporder = await theirs.signApporder(await theirs.createApporder({ app, volume: 10 }));
    const workerpoolorder = await idle.order.signWorkerpoolorder(
      await idle.order.createWorkerpoolorder({ workerpool, workerpoolprice: '0.01 RLC', category: context.categories.short, volume: 3 }));
    const request = await theirs.signRequestorder(
      await theirs.createRequestorder({ app, workerpool, workerpoolmaxprice: '0.01 RLC', category: context.categories.short, volume: 3 }));
    const { dealid } = await theirs.matchOrders({ apporder, workerpoolorder, requestorder: request });
    const { account, deal, task } = as(dave);
    const money = async () => {
      const { stake, locked } = await account.checkBalance(dave.address);
      return [text(stake), text(locked)];
    };
    await check('account.checkBalance: a deal locks what it costs', async () => {
      assert.deepEqual(await money(), ['70000000', '30000000']);
      await refuses(deal.claim(dealid), 'Error', /^Cannot claim a deal before reaching the final time: /);
    });
    await until('the deadline', async () => (await deal.show(dealid)).deadlineReached, { ms: 40000, every: 500 });
    await check('task.obsTask, deal.obsDeal: timed out', async () => {
      const taskid = await deal.computeTaskId(dealid, 0);
      assert.equal((await said(task.obsTask(taskid, { dealid }))).at(-1).message, 'TASK_TIMEDOUT');
      assert.equal((await said(deal.obsDeal(dealid))).at(-1).message, 'DEAL_TIMEDOUT');
    });
    await check('deal.claim: initialized and claimed in one go, and refunded', async () => {
      const { transactions, claimed } = await deal.claim(dealid);
      assert.deepEqual(transactions.map(({ type }) => type), ['initializeAndClaimArray']);
      assert.match(transactions[0].txHash, HASH);
      assert.deepEqual(Object.values(claimed), await Promise.all([0, 1, 2].map((index) => deal.computeTaskId(dealid, index))));
      assert.deepEqual(await money(), ['100000000', '0']);
      assert.equal((await task.show(Object.values(claimed)[0])).statusName, 'FAILED');
    });
    await check('task.claim: a task that failed is not claimed again', async () => {
      await refuses(task.claim(await deal.computeTaskId(dealid, 0)), 'Error', 'Cannot claim a task having status FAILED');
    });
  }
});
