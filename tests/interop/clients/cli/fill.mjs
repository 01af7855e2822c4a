// Deals of orders found on the market, and what comes back of deals that nobody executes.
import { Interface } from 'ethers';
import { assert, context, flow, mined, network, rpc, send, until } from '../../harness.mjs';
import { TAG, taskOf, withApp } from './_command.mjs';

const HUB = new Interface(['function initialize(bytes32,uint256)']);
const HASH = /^0x[0-9a-f]{64}$/;
const { workerpool } = network;

await flow(async ({ check, wallets }) => {
  const { buyer, loser } = await wallets({ buyer: { stake: '1' }, loser: {} });

  const fill = async () => {
    const project = await withApp('buyer', buyer);
    // A request is published only where an app is offered.
    const [app, pool] = await Promise.all([
      project.run('app publish', project.app, ...TAG, '--price', '0', '--volume', '1', '--force').then((said) => said.orderHash),
      project.run('orderbook workerpool', workerpool, '--category', '0', '--require-tag', 'tee,tdx').then((said) => said.workerpoolOrders[0].orderHash),
    ]);
    const asked = await check('app request-execution: a request on the market', async () => {
      const { orderHash } = await project.run('app request-execution', project.app, '--workerpool', workerpool, '--workerpool-price', '0.02', 'RLC', '--category', '0', ...TAG, '--args', 'requested', '--force');
      assert.match(orderHash, HASH);
      return orderHash;
    });
    const filled = await check('order fill: orders of the market by their hashes', async () => {
      const said = await project.run('order fill', '--app', app, '--workerpool', pool, '--request', asked, '--force');
      assert.equal(said.volume, '1');
      await mined(said.txHash);
      return said.dealid;
    });
    await check('deal show: --watch waits for its tasks', async () => {
      const said = await project.run('deal show', filled, '--watch');
      assert.deepEqual([said.tasksCount, said.completedTasksCount, said.failedTasksCount], [1, 1, 0]);
      assert.equal(said.deal.app.pointer, project.app);
    });
  };

  const refunds = async () => {
    const project = await withApp('loser', loser);
    await project.run('workerpool deploy');
    const make = async () => {
      const said = await project.run('app run', '--workerpool', 'deployed', '--category', context.categories.short, ...TAG, '--force');
      return said.deals[0].dealid;
    };
    const [begun, untouched] = [await make(), await make()];
    await send(loser.key, [{ to: network.contracts.hub, data: HUB.encodeFunctionData('initialize', [begun, 0]) }]);
    const { deal } = await project.run('deal show', untouched);
    const end = Number(deal.finalTime);
    assert.ok(end > 0, `finalTime ${deal.finalTime}`);
    await until('the deadline of the deals', async () => Number((await rpc('eth_getBlockByNumber', 'latest', false)).timestamp) > end && Date.now() / 1000 > end + 1, { ms: 60000, every: 500 });
    await check('task claim: refunds after the deadline, once', async () => {
      await mined((await project.run('task claim', taskOf(begun))).txHash);
      const { error } = await project.fails('task claim', taskOf(begun));
      assert.equal(error.message, 'Cannot claim a task having status FAILED');
    });
    await check('deal claim: refunds tasks that nobody began', async () => {
      const { claimed, transactions } = await project.run('deal claim', untouched);
      assert.deepEqual(claimed, { 0: taskOf(untouched) });
      assert.equal(transactions.length, 1);
      await mined(transactions[0].txHash);
    });
  };
  await Promise.all([fill(), refunds()]);
});
