// Whole runs from the command line: deals, watched tasks, results downloaded and opened, logs.
import { readFileSync } from 'node:fs';
import JSZip from 'jszip';
import { assert, flow, mined, network } from '../../harness.mjs';
import { TAG, taskOf, withApp } from './_command.mjs';

const { workerpool } = network;
const open = async (path) => JSZip.loadAsync(readFileSync(path));

await flow(async ({ check, wallets }) => {
  const { requester } = await wallets({ requester: { stake: '2' } });
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
});
