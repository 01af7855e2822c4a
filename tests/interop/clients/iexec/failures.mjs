// What nobody executes is refunded, and services that are down or broken are named.
import { createServer } from 'node:http';
import { Interface } from 'ethers';
import { IExec, utils } from 'iexec';
import { assert, configuration, context, deadUrl, flow, network, refuses, send, until } from '../../harness.mjs';
import { as, bytes32, probe, reader, text } from './_people.mjs';

const HUB = new Interface(['function initialize(bytes32,uint256)']);

await flow(async ({ check, wallets }) => {
  const { developer, pool, requester, other } = await wallets({ developer: {}, pool: { stake: '1' }, requester: { stake: '1' }, other: { stake: '1' } });
  const [dev, keeper, iexec] = [as(developer), as(pool), as(requester)];
  const [app, workerpool] = await Promise.all([
    dev.app.deployApp(probe(developer)).then((done) => done.address),
    keeper.workerpool.deployWorkerpool({ owner: pool.address, description: 'nobody' }).then((done) => done.address),
  ]);
  const category = context.categories.short;
  const [apporder, workerpoolorder] = await Promise.all([
    dev.order.signApporder(await dev.order.createApporder({ app, appprice: 100, volume: 100 })),
    keeper.order.signWorkerpoolorder(await keeper.order.createWorkerpoolorder({ workerpool, workerpoolprice: 1000, category, volume: 100 })),
  ]);
  const match = async (volume) => {
    const requestorder = await iexec.order.signRequestorder(await iexec.order.createRequestorder({ app, category, appmaxprice: 100, workerpoolmaxprice: 1000, volume }));
    const { dealid } = await iexec.order.matchOrders({ apporder, workerpoolorder, requestorder });
    return { dealid, tasks: await Promise.all(Array.from({ length: volume }, (_, index) => iexec.deal.computeTaskId(dealid, index))) };
  };
  const several = await match(3);
  const single = await match(1);
  const initialize = (dealid, index) => ({ to: network.contracts.hub, data: HUB.encodeFunctionData('initialize', [dealid, index]) });
  await send(other.key, [initialize(several.dealid, 0), initialize(single.dealid, 0)]);
  const account = async (who) => (({ stake, locked }) => [text(stake), text(locked)])(await reader().account.checkBalance(who.address));
  const watch = (observable) => new Promise((resolve, reject) => {
    const messages = [];
    observable.subscribe({ next: (one) => messages.push(one), error: reject, complete: () => resolve(messages) });
  });

  await check('task.claim: not before the deadline, nor what nobody began', async () => {
    await refuses(iexec.task.claim(single.tasks[0]), 'Error', /^Cannot claim a task before reaching the consensus deadline date: /);
    await refuses(iexec.task.claim(several.tasks[1]), 'ObjectNotFoundError', `No task found for id ${several.tasks[1]} on chain 421614`);
  });
  await check('task.fetchResults: nothing before the end', () => refuses(iexec.task.fetchResults(single.tasks[0]), 'Error', 'Task is not completed'));
  const timed = Promise.all([
    check('task.obsTask: says that the deadline passed', async () => {
      const messages = await watch(await iexec.task.obsTask(single.tasks[0], { dealid: single.dealid }));
      assert.deepEqual([messages.at(-1).message, messages.at(-1).task.statusName], ['TASK_TIMEDOUT', 'TIMEOUT']);
    }),
    check('deal.obsDeal: says that the deadline passed', async () => {
      const messages = await watch(await iexec.deal.obsDeal(several.dealid));
      const last = messages.at(-1);
      assert.deepEqual([last.message, last.tasksCount, last.completedTasksCount, last.failedTasksCount], ['DEAL_TIMEDOUT', 3, 0, 3]);
    }),
  ]);

  await check('app.deployApp, task.fetchOffchainInfo: an image that nobody has can be registered; its tasks fail with the cause', async () => {
    const image = (await dev.app.deployApp({ ...probe(developer, 'image'), multiaddr: 'registry.invalid/user/app:latest' })).address;
    const asking = as(other);
    const { orders: [offer] } = await reader().orderbook.fetchWorkerpoolOrderbook({ workerpool: network.workerpool, category: 0, minTag: ['tee', 'tdx'] });
    const { dealid } = await asking.order.matchOrders({
      apporder: await dev.order.signApporder(await dev.order.createApporder({ app: image })),
      workerpoolorder: offer.order,
      requestorder: await asking.order.signRequestorder(await asking.order.createRequestorder({ app: image, category: 0, workerpoolmaxprice: '0.02 RLC' })),
    });
    const task = await asking.deal.computeTaskId(dealid, 0);
    const ended = await until('RUNNING_FAILED', async () => {
      const info = await reader().task.fetchOffchainInfo(task).catch(() => null);
      return info?.task.status === 'RUNNING_FAILED' ? info : null;
    });
    const cause = /^APP_IMAGE_DOWNLOAD_FAILED: host registry\.invalid is unknown/;
    assert.equal(ended.replicates.length, 1);
    assert.match(ended.replicates[0].statusHistory.at(-1).cause, cause);
    assert.match(ended.task.statusHistory.find(({ status }) => status === 'RUNNING_FAILED').cause, cause);
    assert.equal(ended.task.statusHistory.at(-1).status, 'RUNNING_FAILED');
  });

  // Meanwhile: services that are down, and one that answers 500 to everything.
  const broken = createServer((request, response) => response.writeHead(500, { 'content-type': 'application/json' }).end('{"error":"boom"}'));
  await new Promise((done) => broken.listen(0, '127.0.0.1', done));
  const brokenUrl = `http://127.0.0.1:${broken.address().port}`;
  const services = [
    ['orderbook.fetchApporder', 'MarketCallError', 'Market API error', (client) => client.orderbook.fetchApporder(bytes32()), 'iexecGatewayURL'],
    ['deal.fetchRequesterDeals', 'MarketCallError', 'Market API error', (client) => client.deal.fetchRequesterDeals(requester.address), 'iexecGatewayURL'],
    ['app.checkAppSecretExists', 'SmsCallError', 'SMS error', (client) => client.app.checkAppSecretExists(app), 'smsURL'],
    ['workerpool.getWorkerpoolApiUrl', 'CompassCallError', 'Compass API error', (client) => client.workerpool.getWorkerpoolApiUrl(workerpool), 'compassURL'],
  ];
  await Promise.all(services.map(([method, className, prefix, call, option]) => check(`${method}: a service that is down or broken is named`, async () => {
    await refuses(call(reader({ [option]: deadUrl })), className, `${prefix}: Connection to ${deadUrl} failed with a network error`);
    await refuses(call(reader({ [option]: brokenUrl })), className, `${prefix}: Server at ${brokenUrl} encountered an internal error`);
  })));
  const compass = createServer((request, response) => response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ apiUrl: brokenUrl })));
  await new Promise((done) => compass.listen(0, '127.0.0.1', done));
  await check('task.fetchOffchainInfo: a scheduler that is broken is named', () =>
    refuses(reader({ compassURL: `http://127.0.0.1:${compass.address().port}` }).task.fetchOffchainInfo(single.tasks[0]), 'WorkerpoolCallError', `Workerpool API error: Server at ${brokenUrl} encountered an internal error`));
  compass.close();
  await check('task.fetchOffchainInfo, task.fetchLogs: a pool that nobody runs has no API', async () => {
    await refuses(reader().task.fetchOffchainInfo(single.tasks[0]), 'Error', `Impossible to resolve API url for workerpool ${workerpool}`);
    await refuses(iexec.task.fetchLogs(single.tasks[0]), 'Error', `Impossible to resolve API url for workerpool ${workerpool}`);
  });
  await check('network.getNetwork: a chain that is down is named', () =>
    refuses(new IExec({ ethProvider: deadUrl }, configuration.iexecOptions).network.getNetwork(), 'Error', 'Failed to detect network: connect ECONNREFUSED 127.0.0.1:9'));

  await timed;
  broken.close();
  await check('task.show: TIMEOUT once the deadline passed', async () => {
    const task = await reader().task.show(single.tasks[0]);
    assert.deepEqual([task.status, task.statusName, task.taskTimedOut], [1, 'TIMEOUT', true]);
  });
  // The chain's clock follows the blocks; the client's is ahead of it by less than a block or two.
  await check('task.claim: the requester gets the money back', async () => {
    const [[stake, locked]] = [await account(requester)];
    assert.deepEqual([stake, locked], [String(10 ** 9 - 4400), '4400']);
    const txHash = await until('the claim', () => iexec.task.claim(single.tasks[0]).catch((error) => (/final time|revert/.test(error.message) ? null : Promise.reject(error))), { every: 300 });
    assert.match(txHash, /^0x[0-9a-f]{64}$/);
    assert.equal((await reader().task.show(single.tasks[0])).statusName, 'FAILED');
    assert.deepEqual(await account(requester), [String(10 ** 9 - 3300), '3300']);
    assert.deepEqual(await account(pool), [String(10 ** 9 - 1200), '900']);
  });
  await check('deal.claim: begun tasks and those that nobody began, in two transactions', async () => {
    const { transactions, claimed } = await iexec.deal.claim(several.dealid);
    assert.deepEqual(transactions.map(({ type }) => type).sort(), ['claimArray', 'initializeAndClaimArray']);
    assert.deepEqual(claimed, Object.fromEntries(several.tasks.entries()));
    for (const task of several.tasks) assert.equal((await reader().task.show(task)).statusName, 'FAILED');
    assert.deepEqual(await account(requester), [String(10 ** 9), '0']);
    assert.deepEqual(await account(pool), [String(10 ** 9 - 1200), '0']);
    await refuses(iexec.deal.claim(several.dealid), 'Error', 'Nothing to claim');
    assert.equal(utils.decodeTag((await reader().deal.show(several.dealid)).tag).length, 2);
  });
});
