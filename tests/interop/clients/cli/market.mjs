// Apps, datasets, workerpools and orders of one person: registered, shown, offered, withdrawn, handed on.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { assert, context, flow, keepSecret, mined, rpc } from '../../harness.mjs';
import { Project, TAG } from './_command.mjs';

const ADDRESS = /^0x[0-9a-fA-F]{40}$/;
const HASH = /^0x[0-9a-f]{64}$/;
const KINDS = ['app', 'dataset', 'workerpool'];

await flow(async ({ check, wallets }) => {
  const { maker, other } = await wallets({ maker: { stake: '1' }, other: {} });
  const project = new Project('maker');
  project.write('wallet.json', { privateKey: maker.key, address: maker.address });
  project.write('iexec.json', {});
  const made = {};

  for (const kind of KINDS) {
    await check(`${kind} init: a template of the wallet’s own in iexec.json`, async () => {
      const said = await project.run(`${kind} init`, ...(kind === 'dataset' ? ['--encrypted'] : []));
      assert.equal(said[kind].owner, maker.address);
      assert.deepEqual(project.read('iexec.json')[kind], said[kind]);
    });
  }
  project.edit('app', { multiaddr: context.app.multiaddr, checksum: context.app.checksum });
  const plain = Buffer.from('what the owner keeps');
  project.write('datasets/original/plain.txt', plain);
  await check('dataset encrypt: a key in .secrets/datasets and a file whose SHA-256 it names', async () => {
    const { encryptedFiles: [one] } = await project.run('dataset encrypt');
    const sealed = readFileSync(one.encrypted);
    keepSecret(readFileSync(one.key, 'utf8'));
    assert.equal(one.checksum, '0x' + createHash('sha256').update(sealed).digest('hex'));
    assert.equal(sealed.includes(plain), false);
    project.edit('dataset', { checksum: one.checksum });
  });
  for (const kind of KINDS) {
    await check(`${kind} deploy: into the registry, and into deployed.json`, async () => {
      const said = await project.run(`${kind} deploy`);
      assert.match(said.address, ADDRESS);
      await mined(said.txHash);
      assert.equal(project.read('deployed.json')[kind]['421614'], said.address);
      made[kind] = said.address;
    });
  }
  const counted = async () => {
    for (const kind of KINDS) {
      await check(`${kind} count: of the wallet`, async () => assert.equal((await project.run(`${kind} count`)).count, '1'));
      await check(`${kind} show: by index and by address`, async () => {
        const said = await project.run(`${kind} show`, 0, '--user', maker.address);
        assert.deepEqual([said.address, said[kind].owner], [made[kind], maker.address]);
      });
    }
  };
  const secrets = async () => {
    await check('app push-secret, app check-secret: by the owner, once', async () => {
      assert.equal((await project.run('app check-secret')).isSecretSet, false);
      await project.run('app push-secret', '--secret-value', keepSecret('what the developer keeps'));
      assert.equal((await project.run('app check-secret', made.app)).isSecretSet, true);
      const { error } = await project.fails('app push-secret', '--secret-value', 'other');
      assert.equal(error.message, `Secret already exists for ${made.app} and can't be updated`);
    });
    await check('dataset push-secret, dataset check-secret: the key of the encrypted file', async () => {
      assert.equal((await project.run('dataset check-secret')).isSecretSet, false);
      await project.run('dataset push-secret');
      assert.equal((await project.run('dataset check-secret', made.dataset)).isSecretSet, true);
    });
  };
  await Promise.all([counted(), secrets()]);

  // The project's own order files.
  await check('order init: templates of all four in iexec.json', async () => {
    const said = await project.run('order init');
    assert.deepEqual([said.apporder.app, said.datasetorder.dataset, said.workerpoolorder.workerpool], [made.app, made.dataset, made.workerpool]);
    const { order } = project.read('iexec.json');
    assert.deepEqual(Object.keys(order).sort(), ['apporder', 'datasetorder', 'requestorder', 'workerpoolorder']);
    project.edit('order', { requestorder: { ...order.requestorder, app: made.app, dataset: made.dataset, requester: maker.address, beneficiary: maker.address } });
  });
  await check('order sign: all four in orders.json', async () => {
    const said = await project.run('order sign', '--force');
    assert.deepEqual(Object.keys(said).sort(), ['apporder', 'datasetorder', 'ok', 'requestorder', 'workerpoolorder']);
    assert.match(said.requestorder.sign, /^0x[0-9a-f]{130}$/);
    assert.equal(project.read('orders.json')['421614'].apporder.sign, said.apporder.sign);
  });
  const hashes = await check('order publish: all four on the market', async () => {
    const said = await project.run('order publish', '--app', '--dataset', '--workerpool', '--request', '--force');
    for (const kind of [...KINDS, 'request']) assert.match(said[`${kind}order`].orderHash, HASH);
    return said;
  });
  const book = async (command, member, hash) => {
    const said = await project.run(...command);
    assert.deepEqual([said.count, said[member].map(({ orderHash }) => orderHash)], [1, [hash]]);
  };
  await Promise.all([
    (async () => {
      await check('orderbook app: what is offered', () => book(['orderbook app', made.app, '--require-tag', 'tee,tdx'], 'appOrders', hashes.apporder.orderHash));
      await check('orderbook dataset: what is offered', () => book(['orderbook dataset', made.dataset], 'datasetOrders', hashes.datasetorder.orderHash));
    })(),
    (async () => {
      await check('orderbook workerpool: what is offered', () => book(['orderbook workerpool', made.workerpool, '--category', '0'], 'workerpoolOrders', hashes.workerpoolorder.orderHash));
      await check('orderbook requester: what is asked', () => book(['orderbook requester', maker.address, '--app', made.app], 'requestOrders', hashes.requestorder.orderHash));
      await check('order show: of orders.json and of the market, with its deals', async () => {
        const said = await project.run('order show', '--app', hashes.apporder.orderHash, '--request', '--deals');
        assert.equal(said.apporder.orderHash ?? said.apporder.order?.orderHash, hashes.apporder.orderHash);
        assert.equal(said.apporder.deals.count, 0);
      });
    })(),
  ]);
  const withdrawn = async () => {
    await check('order unpublish: from the market', async () => {
      const said = await project.run('order unpublish', '--workerpool', hashes.workerpoolorder.orderHash, '--request', '--force');
      for (const kind of ['workerpool', 'request']) assert.equal(said[`${kind}order`].orderHash, hashes[`${kind}order`].orderHash);
    });
    await check('order cancel: in the hub, for good', async () => {
      const said = await project.run('order cancel', '--workerpool', '--request', '--force');
      await Promise.all([mined(said.workerpoolorder.txHash), mined(said.requestorder.txHash)]);
      const { fail } = await project.fails('order publish', '--workerpool', '--force');
      assert.deepEqual(fail, ['workerpoolorder: API error: order already consumed']);
    });
  };
  // Offers without files.
  const offered = async () => {
    for (const kind of KINDS) {
      const options = { app: [...TAG, '--price', '3', 'nRLC', '--volume', '5'], dataset: [...TAG, '--price', '4'], workerpool: [...TAG, '--category', '0', '--price', '5'] }[kind];
      const orderHash = await check(`${kind} publish: an order of the last deployed one`, async () => {
        const said = await project.run(`${kind} publish`, ...options, '--force');
        const listed = (await project.run(`orderbook ${kind}`, made[kind]))[`${kind}Orders`];
        assert.ok(listed.some((one) => one.orderHash === said.orderHash));
        return said.orderHash;
      });
      await check(`${kind} unpublish: the last one`, async () => {
        assert.equal((await project.run(`${kind} unpublish`, made[kind], '--force')).unpublished, orderHash);
      });
    }
  };
  // One after the other: the market gives a wallet one challenge at a time.
  await withdrawn();
  await offered();
  for (const kind of KINDS) {
    await check(`${kind} transfer: to another owner`, async () => {
      const said = await project.run(`${kind} transfer`, made[kind], '--to', other.address, '--force');
      assert.deepEqual([said.address, said.to], [made[kind], other.address]);
      await mined(said.txHash);
      assert.equal(await rpc('eth_call', { to: made[kind], data: '0x8da5cb5b' }, 'latest'), '0x' + other.address.slice(2).toLowerCase().padStart(64, '0'));
    });
  }
});
