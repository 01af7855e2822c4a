// One request on many data: prepared, run slice by slice, looked at; an access that was revoked in between fails alone.
import { assert, check, flow, keepSecret, refuses } from '../../harness.mjs';
import { deployApp, json, listener, offerApp, people, workerpool, ZERO } from './_people.mjs';

const POOL_PRICE = 20_000_000; // what the pool of a local network asks, nRLC
const archive = async (bytes) => (await import('jszip')).default.loadAsync(bytes);
const entry = async (bytes, name) => JSON.parse(await (await archive(bytes)).file(name).async('string'));

await flow(async ({ context }) => {
  const { owner, other, user, developer } = await people({ owner: {}, other: {}, user: { stake: '1' }, developer: {} });
  const { core } = user;
  const app = await deployApp(developer, context.app);
  await offerApp(developer, app);
  const protect = async (who, names) => {
    const made = [];
    for (const name of names) {
      const { address } = await who.core.protectData({ name, data: { word: name } });
      made.push(await who.core.grantAccess({ protectedData: address, authorizedApp: app, authorizedUser: user.address, allowBulk: true }));
    }
    return made;
  };
  const [[one, two, three], [four, five]] = await Promise.all([protect(owner, ['one', 'two', 'three']), protect(other, ['four', 'five'])]);
  const accesses = [one, two, three, four, five];
  const request = { bulkAccesses: accesses, app, workerpool, workerpoolMaxPrice: POOL_PRICE, maxProtectedDataPerTask: 2, args: '--read word:string' };

  await check('getGrantedAccess: what may be used in bulk, of all owners', async () => {
    const { grantedAccess } = await core.getGrantedAccess({ authorizedApp: app, authorizedUser: user.address, bulkOnly: true });
    assert.deepEqual(grantedAccess.map(({ salt }) => salt).sort(), accesses.map(({ salt }) => salt).sort());
  });
  const preparing = listener();
  const plain = await check('prepareBulkRequest: five data, two a task: three tasks; signed by the requester', async () => {
    const { bulkRequest, pemPrivateKey } = await core.prepareBulkRequest({ ...request, secrets: { 1: 'whisper' }, onStatusUpdate: preparing });
    assert.equal(pemPrivateKey, undefined);
    const { params, salt, sign, ...rest } = bulkRequest;
    const lower = Object.fromEntries(Object.entries(rest).map(([name, value]) => [name, value.toLowerCase()]));
    assert.deepEqual(lower, {
      app, appmaxprice: '0', dataset: ZERO, datasetmaxprice: '0', workerpool: workerpool.toLowerCase(), workerpoolmaxprice: String(POOL_PRICE),
      requester: user.lower, volume: '3', tag: `0x${'0'.repeat(63)}9`, category: '0', trust: '0', beneficiary: user.lower, callback: ZERO,
    });
    assert.match(salt, /^0x[0-9a-f]{64}$/);
    assert.match(sign, /^0x[0-9a-f]{130}$/);
    const { bulk_cid: root, iexec_args: args } = JSON.parse(params);
    assert.equal(args, request.args);
    assert.match(root, /^Qm\w{44}$/);
    assert.deepEqual(preparing.finished(), ['PUSH_REQUESTER_SECRET', 'PREPARE_PROTECTED_DATA_BULK', 'CREATE_BULK_REQUEST']);
    return bulkRequest;
  });
  const sealed = await check('prepareBulkRequest: results sealed to a key that the client makes', async () => {
    const said = listener();
    const { bulkRequest, pemPrivateKey } = await core.prepareBulkRequest({
      ...request, bulkAccesses: [one, two, four], encryptResult: true, onStatusUpdate: said,
    });
    keepSecret(pemPrivateKey);
    assert.match(pemPrivateKey, /^-----BEGIN PRIVATE KEY-----/);
    assert.equal(bulkRequest.volume, '2');
    assert.equal(JSON.parse(bulkRequest.params).iexec_result_encryption, true);
    assert.deepEqual(said.finished().slice(-4), ['GENERATE_ENCRYPTION_KEY', 'PUSH_ENCRYPTION_KEY', 'PREPARE_PROTECTED_DATA_BULK', 'CREATE_BULK_REQUEST']);
    return { bulkRequest, pemPrivateKey };
  });
  await check('prepareBulkRequest: an access that is not for bulk, none at all, too many', async () => {
    const { address } = await owner.core.protectData({ name: 'single', data: { word: 'single' } });
    const single = await owner.core.grantAccess({ protectedData: address, authorizedApp: app, authorizedUser: user.address });
    const refused = async (changed, cause) => {
      const error = await refuses(core.prepareBulkRequest({ ...request, ...changed }), 'WorkflowError', 'Failed to prepare bulk request');
      assert.equal(error.cause.message, cause);
    };
    await refused({ bulkAccesses: [single] }, '[0].volume (1) is not valid for bulk datasetorder expected DATASET_INFINITE_VOLUME (9007199254740991)');
    await refused({ maxProtectedDataPerTask: 101 }, 'maxDatasetPerTask must be less than or equal to 100');
    await refuses(core.prepareBulkRequest({ ...request, bulkAccesses: [] }), 'ValidationError', 'bulkAccesses is required and must not be empty');
  });

  await check('inspectBulkRequest: before anything runs', async () => {
    assert.deepEqual(await core.inspectBulkRequest({ bulkRequest: plain }), {
      bulkStatus: 'INITIALIZING', tasksToCreateCount: 3, tasksProcessingCount: 0, tasksCompletedCount: 0, tasksTotalCount: 3, tasks: [],
    });
  });
  await check('revokeOneAccess: an access that is in a prepared request', async () => {
    await owner.core.revokeOneAccess(two);
  });

  const running = listener();
  const tasks = await check('processBulkRequest: one deal for the three tasks', async () => {
    const { tasks } = await core.processBulkRequest({ bulkRequest: plain, workerpool, onStatusUpdate: running });
    assert.deepEqual(tasks.map(({ bulkIndex }) => bulkIndex).sort(), [0, 1, 2]);
    assert.equal(new Set(tasks.map(({ taskId }) => taskId)).size, 3);
    assert.deepEqual(running.finished(), ['FETCH_ORDERS', 'REQUEST_TO_PROCESS_BULK_DATA', 'CREATE_BULK_TASKS']);
    return tasks;
  });
  const waiting = check('processBulkRequest: waits for sealed results and opens them; the revoked access fails alone', async () => {
    const { bulkRequest, pemPrivateKey } = sealed;
    const { tasks: done } = await core.processBulkRequest({ bulkRequest, workerpool, pemPrivateKey, path: 'bulk.json', waitForResult: true });
    done.sort((a, b) => a.bulkIndex - b.bulkIndex);
    assert.deepEqual(done.map(({ status, success, error }) => [status, success, error]), [['COMPLETED', true, undefined], ['COMPLETED', true, undefined]]);
    const [first, second] = done.map(({ result }) => json(result));
    assert.deepEqual(first.map(shown), [[1, one.dataset, 'ok'], [2, two.dataset, 'failed']]);
    assert.deepEqual(second.map(shown), [[1, four.dataset, 'ok']]);
    assert.ok(first[1].cause && first[1].message);
    return done;
  });
  await check('processBulkRequest: a second time gives the same tasks and makes no second deal', async () => {
    const again = await core.processBulkRequest({ bulkRequest: plain, workerpool });
    assert.deepEqual(again.tasks.map(({ taskId }) => taskId).sort(), tasks.map(({ taskId }) => taskId).sort());
  });
  await check('waitForTaskCompletion: of each task of a bulk', async () => {
    const ends = await Promise.all(tasks.map(({ taskId, dealId }) => core.waitForTaskCompletion({ taskId, dealId })));
    assert.deepEqual(ends, Array(3).fill({ status: 'COMPLETED', success: true }));
  });
  await check('inspectBulkRequest: finished; which data each task had, and its result', async () => {
    const { tasks: seen, ...counts } = await core.inspectBulkRequest({ bulkRequest: plain, detailed: true, withResult: true });
    assert.deepEqual(counts, { bulkStatus: 'FINISHED', tasksToCreateCount: 0, tasksProcessingCount: 0, tasksCompletedCount: 3, tasksTotalCount: 3 });
    seen.sort((a, b) => a.bulkIndex - b.bulkIndex);
    assert.deepEqual(seen.map(({ taskId }) => taskId), [...tasks].sort((a, b) => a.bulkIndex - b.bulkIndex).map(({ taskId }) => taskId));
    assert.deepEqual(seen.map(({ status, success }) => [status, success]), Array(3).fill(['COMPLETED', true]));
    const groups = [[one, two], [three, four], [five]].map((group) => group.map(({ dataset }) => dataset));
    assert.deepEqual(seen.map(({ protectedDataAddresses }) => [...protectedDataAddresses].sort()), groups.map((group) => [...group].sort()));

    const reports = await Promise.all(seen.map(({ result }) => entry(result, 'bulk.json')));
    assert.deepEqual(reports.map((report) => report.map(shown)), [
      [[1, one.dataset, 'ok'], [2, two.dataset, 'failed']],
      [[1, three.dataset, 'ok'], [2, four.dataset, 'ok']],
      [[1, five.dataset, 'ok']],
    ]);
    const looks = await Promise.all(seen.map(({ result }) => entry(result, 'result.json')));
    assert.deepEqual(looks.map(({ bulk }) => bulk.map(({ data }) => data.word)), [['one', undefined], ['three', 'four'], ['five']]);
    assert.deepEqual(looks.map(({ environment }) => environment.IEXEC_BULK_SLICE_SIZE), ['2', '2', '1']);
    assert.deepEqual(Object.keys(looks[0].files), [one.dataset]);
    assert.equal(looks[0].environment.IEXEC_DATASET_2_FILENAME, two.dataset);
    assert.ok(looks.every(({ secrets }) => 'IEXEC_REQUESTER_SECRET_1' in secrets));
  });
  await waiting;
  await check('inspectBulkRequest: of sealed results, one file of each', async () => {
    const { bulkRequest, pemPrivateKey } = sealed;
    const { bulkStatus, tasks: seen } = await core.inspectBulkRequest({ bulkRequest, detailed: true, withResult: true, pemPrivateKey, path: 'result.json' });
    assert.equal(bulkStatus, 'FINISHED');
    seen.sort((a, b) => a.bulkIndex - b.bulkIndex);
    assert.deepEqual(seen.map(({ result }) => json(result).bulk.map(({ data }) => data.word)), [['one', undefined], ['four']]);
  });
  await check('processBulkRequest: everything is paid once', async () => {
    const { stake, locked } = await user.iexec.account.checkBalance(user.address);
    assert.deepEqual([stake.toNumber(), locked.toNumber()], [1e9 - 5 * POOL_PRICE, 0]);
  });
});

function shown({ index, dataset, status }) {
  return [index, dataset.toLowerCase(), status];
}
