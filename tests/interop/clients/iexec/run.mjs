// Whole runs: data encrypted, keys handed over, tasks executed, results opened, everybody paid.
import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto';
import { utils } from 'iexec';
import JSZip from 'jszip';
import { create } from 'kubo-rpc-client';
import { assert, configuration, deadUrl, flow, keepSecret, network, refuses, rpc, send, until } from '../../harness.mjs';
import { as, bytes32, probe, reader, text } from './_people.mjs';

const sha256 = (bytes) => createHash('sha256').update(Buffer.from(bytes)).digest('hex');
const { workerpool } = configuration;
/** Init code of a contract that logs what it is called with. */
const RECEIVER = '0x600a600a5f39600a5ff3365f5f376001365fa100';

await flow(async ({ check, wallets }) => {
  const { developer, owner, requester, beneficiary } = await wallets({ developer: {}, owner: {}, requester: { stake: '5' }, beneficiary: {} });
  const [dev, own, iexec] = [as(developer), as(owner), as(requester)];
  const [appSecret, secret] = [keepSecret('the developer’s secret'), keepSecret('the requester’s secret')];
  const kubo = create({ url: configuration.iexecOptions.ipfsNodeURL });
  const upload = async (bytes) => (await kubo.add(bytes)).cid.toString();

  const plain = randomBytes(300_000);
  const input = Buffer.from('an input file');
  const inputCid = await upload(input);
  const inputUrl = `${configuration.iexecOptions.ipfsGatewayURL}/ipfs/${inputCid}`;
  const pair = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const privatePem = keepSecret(pair.privateKey.export({ type: 'pkcs8', format: 'pem' }));

  const deployApp = async (name) => {
    const { address } = await dev.app.deployApp(probe(developer, name));
    await dev.order.publishApporder(await dev.order.signApporder(await dev.order.createApporder({ app: address, appprice: 1000, volume: 1000 })));
    return address;
  };
  const [[app, open], dataset] = await Promise.all([
    (async () => {
      const address = await deployApp('with a secret');
      await dev.app.pushAppSecret(address, appSecret);
      return [address, await deployApp('without secrets')];
    })(),
    (async () => {
      const key = keepSecret(own.dataset.generateEncryptionKey());
      const sealed = Buffer.from(await own.dataset.encrypt(plain, key));
      const checksum = await own.dataset.computeEncryptedFileChecksum(sealed);
      const { address } = await own.dataset.deployDataset({ owner: owner.address, name: 'random', multiaddr: `/ipfs/${await upload(sealed)}`, checksum });
      await own.dataset.pushDatasetSecret(address, key);
      return address;
    })(),
    iexec.secrets.pushRequesterSecret('first', secret),
    as(beneficiary).result.pushResultEncryptionKey(pair.publicKey.export({ type: 'spki', format: 'pem' })),
  ]);
  await own.order.publishDatasetorder(await own.order.signDatasetorder(await own.order.createDatasetorder({ dataset, datasetprice: 500, volume: 10, apprestrict: app })));

  const offers = { app: open, category: 0, appmaxprice: 1000, workerpoolmaxprice: '0.02 RLC', workerpool };
  const best = (orders) => orders.find(({ order }) => utils.decodeTag(order.tag).includes('tdx')).order;
  const offerOf = {
    app: async (app) => best((await reader().orderbook.fetchAppOrderbook({ app, requester: requester.address, dataset: 'any' })).orders),
    dataset: async () => (await reader().orderbook.fetchDatasetOrderbook({ dataset, app, requester: requester.address })).orders[0].order,
    workerpool: async () => best((await reader().orderbook.fetchWorkerpoolOrderbook({ workerpool, category: 0, minTag: ['tee', 'tdx'] })).orders),
  };
  // One wallet: deals are made one after the other, then all tasks run at once.
  const match = async (over) => {
    const requestorder = await iexec.order.signRequestorder(await iexec.order.createRequestorder({ ...offers, ...over }));
    const orders = { requestorder, apporder: await offerOf.app(requestorder.app), workerpoolorder: await offerOf.workerpool(), ...(over.dataset ? { datasetorder: await offerOf.dataset() } : {}) };
    const { dealid, volume } = await iexec.order.matchOrders(orders);
    assert.equal(text(volume), String(over.volume ?? 1));
    const tasks = await Promise.all(Array.from({ length: over.volume ?? 1 }, (_, index) => iexec.deal.computeTaskId(dealid, index)));
    return { dealid, tasks };
  };
  const watch = (observable) => new Promise((resolve, reject) => {
    const messages = [];
    observable.subscribe({ next: (one) => messages.push(one), error: reject, complete: () => resolve(messages) });
  });
  const done = async ({ dealid, tasks }) => {
    await Promise.all(tasks.map(async (task) => watch(await iexec.task.obsTask(task, { dealid }))));
    return { dealid, tasks };
  };
  // The chain knows of the end before the scheduler does.
  const told = async (task) => {
    let info;
    await until('', async () => {
      info = await reader().task.fetchOffchainInfo(task);
      return info.task.status === 'COMPLETED' && info.replicates.every(({ status }) => status === 'COMPLETED');
    }, { ms: 15000, every: 300 }).catch(() => assert.fail(`the scheduler still says ${JSON.stringify(info)}`));
    return info;
  };
  const files = async (task, client = reader()) => JSZip.loadAsync(await (await client.task.fetchResults(task)).arrayBuffer());
  const report = async (zip) => JSON.parse(await zip.file('result.json').async('string'));
  const balance = async (who) => (({ stake, locked }) => [Number(stake), Number(locked)])(await reader().account.checkBalance(who.address));

  const pool = { address: (await reader().workerpool.showWorkerpool(workerpool)).workerpool.owner };
  const before = { developer: await balance(developer), owner: await balance(owner), requester: await balance(requester) };
  const words = ['--sleep', '0', 'ünïcode', 'two words'];
  const full = await match({
    app, dataset, datasetmaxprice: 500, beneficiary: beneficiary.address,
    params: { iexec_args: '--sleep 0 ünïcode "two words"', iexec_input_files: [inputUrl], iexec_secrets: { 1: 'first' }, iexec_result_encryption: true },
  });
  const double = await match({ volume: 2, params: 'double' });
  const [{ contractAddress: sink }] = await send(owner.key, [{ data: RECEIVER }]);
  const callback = await match({ callback: sink, params: { iexec_args: '--callback 0x00c0ffee' } });
  const failing = await match({ params: '--stderr broken --exit 3' });
  const forgetful = await match({ params: '--no-computed' });
  const folder = await match({ params: '--directory' });
  await iexec.storage.pushStorageToken(keepSecret('a token of dropbox'), 'dropbox');
  const elsewhere = await match({ params: { iexec_result_storage_provider: 'dropbox' } });

  const stages = check('task.obsTask: says how the task goes until it is completed', async () => {
    const messages = await watch(await iexec.task.obsTask(full.tasks[0], { dealid: full.dealid }));
    assert.equal(messages.at(-1).message, 'TASK_COMPLETED');
    assert.deepEqual([messages.at(-1).task.statusName, messages.at(-1).task.taskid], ['COMPLETED', full.tasks[0]]);
  });
  const dealt = check('deal.obsDeal: counts the tasks until all are completed', async () => {
    const messages = await watch(await iexec.deal.obsDeal(double.dealid));
    const last = messages.at(-1);
    assert.deepEqual([last.message, last.tasksCount, last.completedTasksCount, last.failedTasksCount], ['DEAL_COMPLETED', 2, 2, 0]);
  });

  await Promise.all([
    stages.then(() => check('utils.decryptResult, task.fetchResults: the sealed result opens with the beneficiary’s key', async () => {
      const sealed = await (await as(beneficiary).task.fetchResults(full.tasks[0])).arrayBuffer();
      assert.deepEqual(Object.keys((await JSZip.loadAsync(sealed)).files).sort(), ['aes-key.rsa', 'iexec_out.zip.aes']);
      const seen = await report(await JSZip.loadAsync(await utils.decryptResult(Buffer.from(sealed), privatePem)));
      assert.deepEqual(seen.args, words);
      assert.deepEqual(seen.secrets, {
        IEXEC_APP_DEVELOPER_SECRET: sha256(appSecret), IEXEC_APP_DEVELOPER_SECRET_1: sha256(appSecret), IEXEC_REQUESTER_SECRET_1: sha256(secret),
      });
      const inputName = `0x${sha256(inputUrl)}`;
      assert.deepEqual(seen.files, {
        [dataset.toLowerCase()]: { size: plain.length, sha256: sha256(plain) }, [inputName]: { size: input.length, sha256: sha256(input) },
      });
      assert.deepEqual(seen.environment, {
        IEXEC_TASK_ID: full.tasks[0], IEXEC_DEAL_ID: full.dealid, IEXEC_TASK_INDEX: '0', IEXEC_IN: '/iexec_in', IEXEC_OUT: '/iexec_out',
        IEXEC_BOT_SIZE: '1', IEXEC_BOT_FIRST_INDEX: '0', IEXEC_BOT_TASK_INDEX: '0',
        IEXEC_DATASET_ADDRESS: dataset.toLowerCase(), IEXEC_DATASET_FILENAME: dataset.toLowerCase(),
        IEXEC_INPUT_FILES_NUMBER: '1', IEXEC_INPUT_FILES_FOLDER: '/iexec_in', IEXEC_INPUT_FILE_NAME_1: inputName,
      });
      const another = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ type: 'pkcs8', format: 'pem' });
      await refuses(utils.decryptResult(Buffer.from(sealed), another), 'Error', /^Failed to decrypt /);
    })),
    stages.then(() => check('task.show: what the chain has', async () => {
      const task = await reader().task.show(full.tasks[0]);
      assert.deepEqual([task.taskid, task.dealid, task.status, task.statusName, task.taskTimedOut], [full.tasks[0], full.dealid, 3, 'COMPLETED', false]);
      assert.equal(task.results.storage, 'ipfs');
      assert.match(task.results.location, /^\/ipfs\/Qm[1-9A-HJ-NP-Za-km-z]{44}$/);
      assert.match(task.resultDigest, /^0x[0-9a-f]{64}$/);
      assert.deepEqual([task.resultsCallback, text(task.idx), task.contributors.length], ['0x', '0', 1]);
      const unknown = bytes32();
      await refuses(reader().task.show(unknown), 'ObjectNotFoundError', `No task found for id ${unknown} on chain 421614`);
    })),
    dealt.then(() => check('task.fetchResults: a plain archive for each task of the deal', async () => {
      for (const [index, task] of double.tasks.entries()) {
        const zip = await files(task);
        const seen = await report(zip);
        assert.deepEqual([seen.args, seen.environment.IEXEC_TASK_INDEX, seen.environment.IEXEC_BOT_SIZE, seen.files, seen.data.error !== undefined], [['double'], String(index), '2', {}, true]);
        assert.equal(seen.environment.IEXEC_DATASET_ADDRESS, utils.NULL_ADDRESS);
        assert.deepEqual(Object.keys(zip.files).filter((name) => name !== 'receipt.cose').sort(), ['computed.json', 'result.json', 'stderr.txt', 'stdout.txt', 'usage.json']);
        assert.equal(await zip.file('stdout.txt').async('string'), 'the probe says double\n');
        const { resultDigest } = await reader().task.show(task);
        assert.equal(resultDigest, `0x${sha256(await zip.file('result.json').async('uint8array'))}`);
      }
    })),
    dealt.then(() => check('task.fetchResults: a gateway that is down is named', () =>
      refuses(reader({ ipfsGatewayURL: deadUrl }).task.fetchResults(double.tasks[0]), 'IpfsGatewayCallError', `IPFS gateway error: Connection to ${deadUrl} failed with a network error`))),
    dealt.then(() => check('task.fetchLogs: what the app said, for the requester only', async () => {
      const [task] = double.tasks;
      const logs = await iexec.task.fetchLogs(task);
      assert.equal(logs.length, 1);
      assert.match(logs[0].worker, /^0x[0-9a-fA-F]{40}$/);
      assert.match(logs[0].stdout, /^the probe says double$/m);
      await refuses(dev.task.fetchLogs(task), 'Error', `Only task requester ${requester.address} can access replicates logs`);
    })),
    dealt.then(() => check('task.fetchOffchainInfo: the statuses of the task and of its one worker', async () => {
      const info = await told(double.tasks[0]);
      assert.equal(info.task.status, 'COMPLETED');
      const names = info.task.statusHistory.map(({ status }) => status);
      assert.deepEqual([names[0], names.at(-1)], ['RECEIVED', 'COMPLETED']);
      for (const { date } of info.task.statusHistory) assert.ok(Math.abs(Date.parse(date) - Date.now()) < 600_000, `date ${date}`);
      assert.equal(info.replicates.length, 1);
      assert.deepEqual([info.replicates[0].status, info.replicates[0].exitCode], ['COMPLETED', 0]);
      assert.deepEqual(info.replicates[0].statusHistory.map(({ status }) => status).filter((status) => ['CREATED', 'COMPLETED'].includes(status)), ['CREATED', 'COMPLETED']);
    })),
    done(callback).then(({ tasks: [task] }) => check('task.show, task.fetchResults: a callback task carries its data on chain and no archive', async () => {
      const shown = await reader().task.show(task);
      assert.deepEqual([shown.statusName, shown.resultsCallback, shown.results.storage], ['COMPLETED', '0x00c0ffee', 'ethereum']);
      assert.equal(shown.results.location.toLowerCase(), sink);
      const [{ data }] = await rpc('eth_getLogs', { address: sink, fromBlock: '0x0' });
      assert.equal(data, '0x5dd80855' + task.slice(2) + '40'.padStart(64, '0') + '4'.padStart(64, '0') + '00c0ffee'.padEnd(64, '0'));
      await refuses(reader().task.fetchResults(task), 'Error', 'Task result stored on ethereum, download not supported');
    })),
    done(failing).then(({ tasks: [task] }) => check('task.fetchResults, task.fetchOffchainInfo: an app that fails gives error.txt and is paid all the same', async () => {
      const zip = await files(task);
      const reason = await zip.file('error.txt').async('string');
      assert.match(reason, /^\[IEXEC\] Errors occurred while computing the task \[error:.*APP_COMPUTE_FAILED/);
      const info = await told(task);
      assert.deepEqual([info.task.status, info.replicates[0].exitCode], ['COMPLETED', 3]);
      assert.match((await iexec.task.fetchLogs(task))[0].stderr, /^broken$/m);
    })),
    done(forgetful).then(({ tasks: [task] }) => check('task.fetchResults: an app without computed.json gives error.txt', async () => {
      assert.match(await (await files(task)).file('error.txt').async('string'), /POST_COMPUTE_COMPUTED_FILE_NOT_FOUND/);
    })),
    done(elsewhere).then(({ tasks: [task] }) => check('storage.pushStorageToken: a result that should go elsewhere is not put here instead', async () => {
      const zip = await files(task);
      assert.match(await zip.file('error.txt').async('string'), /POST_COMPUTE_DROPBOX_UPLOAD_FAILED/);
      assert.equal(zip.file('result.json'), null);
    })),
    done(folder).then(({ tasks: [task] }) => check('task.fetchResults: a directory result has its digest and its files', async () => {
      const zip = await files(task);
      assert.equal(await zip.file('parts/first.txt').async('string'), 'first');
      assert.equal(await zip.file('parts/second.txt').async('string'), 'second');
    })),
  ]);

  await check('account.checkBalance, order.matchOrders: everybody is paid to the last nRLC', async () => {
    const after = { developer: await balance(developer), owner: await balance(owner), requester: await balance(requester) };
    const gain = (who) => after[who][0] + after[who][1] - before[who][0] - before[who][1];
    assert.deepEqual([gain('developer'), gain('owner'), gain('requester'), after.requester[1]], [8 * 1000, 500, -(8 * 20_000_000 + 8 * 1000 + 500), 0]);
    assert.match(pool.address, /^0x/);
    assert.equal(network.workerpool, workerpool);
  });
});
