// Whole runs from the command line: deals, watched tasks, results downloaded and opened, logs, refunds.
import { readFileSync } from 'node:fs';
import { Interface, concat, keccak256, toBeHex, zeroPadValue } from 'ethers';
import JSZip from 'jszip';
import { assert, context, flow, mined, network, rpc, send, until } from '../../harness.mjs';
import { Project } from './_command.mjs';

const HUB = new Interface(['function initialize(bytes32,uint256)']);
const HASH = /^0x[0-9a-f]{64}$/;
const TAG = ['--tag', 'tee,tdx'];
const { workerpool } = network;
const taskOf = (dealid) => keccak256(concat([dealid, zeroPadValue(toBeHex(0), 32)]));

/** A project whose wallet owns a deployed app. */
async function withApp(name, person) {
  const project = new Project(name);
  project.write('wallet.json', { privateKey: person.key, address: person.address });
  project.write('iexec.json', {
    app: { owner: person.address, name, type: 'DOCKER', multiaddr: context.app.multiaddr, checksum: context.app.checksum },
    workerpool: { owner: person.address, description: 'nobody' },
  });
  project.write('orders.json', { 421614: {} });
  project.app = (await project.run('app deploy')).address;
  return project;
}

const open = async (path) => JSZip.loadAsync(readFileSync(path));

await flow(async ({ check, wallets }) => {
  const { requester, loser } = await wallets({ requester: { stake: '2' }, loser: {} });

  const runs = async () => {
    const project = await withApp('requester', requester);
    await project.run('result generate-encryption-keypair', '--force');
    await project.run('result push-encryption-key');

    const sealed = await check('app run: makes a deal; the result will be sealed', async () => {
      const { deals: [deal] } = await project.run('app run', project.app, '--workerpool', workerpool, '--category', '0', ...TAG, '--args', 'sealed', '--encrypt-result', '--force');
      assert.equal(deal.volume, '1');
      await mined(deal.txHash);
      return deal.dealid;
    });
    const [plain] = await Promise.all([
      check('app run: --watch waits for the end', async () => {
        const { deals: [deal], tasks: [task] } = await project.run('app run', '--workerpool', workerpool, '--category', '0', ...TAG, '--args', 'plain words', '--watch', '--force');
        assert.deepEqual([task.statusName, task.taskid], ['COMPLETED', taskOf(deal.dealid)]);
        return task.taskid;
      }),
      check('task show: --watch --download --decrypt gives the files', async () => {
        const { task, resultPath, claimable } = await project.run('task show', taskOf(sealed), '--watch', '--download', 'opened', '--decrypt');
        assert.deepEqual([task.statusName, claimable, resultPath], ['COMPLETED', false, project.path('opened.zip')]);
        const report = JSON.parse(await (await open(resultPath)).file('result.json').async('string'));
        assert.deepEqual(report.args, ['sealed']);
      }),
    ]);
    await Promise.all([
      check('result decrypt: opens a downloaded archive', async () => {
        await project.run('task show', taskOf(sealed), '--download', 'sealed.zip');
        assert.deepEqual(Object.keys((await open(project.path('sealed.zip'))).files).sort(), ['aes-key.rsa', 'iexec_out.zip.aes']);
        const { resultsPath } = await project.run('result decrypt', 'sealed.zip', '--force');
        assert.ok((await open(resultsPath)).file('receipt.cose'));
      }),
      check('task debug: on-chain and off-chain data, logs for the requester', async () => {
        const said = await project.run('task debug', plain, '--logs');
        assert.equal(said.onchainData.statusName, 'COMPLETED');
        assert.equal(said.offchainData.replicates.length, 1);
        assert.match(said.appLogs[0].stdout, /^the probe says plain words$/m);
      }),
    ]);

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
  await Promise.all([runs(), refunds()]);
});
