// The order books: every filter, restrictions loose and strict, tags, prices in order, pages.
import { utils } from 'iexec';
import { assert, flow, refuses } from '../../harness.mjs';
import { as, bytes32, probe, reader } from './_people.mjs';

const [PERSON, OTHER] = ['0x' + '51'.repeat(20), '0x' + '52'.repeat(20)];
const TEE = ['tee', 'tdx'];

await flow(async ({ check, wallets }) => {
  const { alice, bob, carol } = await wallets({ alice: {}, bob: { stake: '1' }, carol: { stake: '1' } });
  const [a, b, c] = [as(alice), as(bob), as(carol)];
  const off = { preflightCheck: false };
  const [app, dataset, workerpool] = await Promise.all([
    a.app.deployApp(probe(alice)).then((done) => done.address),
    c.dataset.deployDataset({ owner: carol.address, name: 'd', multiaddr: '/ipfs/QmSAY4mYRkCvdDzcD3A3sDeN5nChyn82p88xt7HhYHqXfi', checksum: bytes32() }).then((done) => done.address),
    b.workerpool.deployWorkerpool({ owner: bob.address, description: 'p' }).then((done) => done.address),
  ]);
  const books = { App: 'fetchAppOrderbook', Dataset: 'fetchDatasetOrderbook', Workerpool: 'fetchWorkerpoolOrderbook', Request: 'fetchRequestOrderbook' };
  const publish = async (client, kind, members) => {
    const order = await client.order[`sign${kind}order`](await client.order[`create${kind}order`](members), off);
    return client.order[`publish${kind}order`](order, off);
  };
  /** Publish one after the other; gives names by hash. */
  const publishAll = async (client, kind, base, variants) => {
    const names = new Map();
    for (const [name, over] of Object.entries(variants)) names.set(await publish(client, kind, { ...base, ...over }), name);
    return names;
  };
  /** The names of the orders that a filter finds, in the market's order. */
  const book = async (kind, names, filter) => {
    const { orders, count } = await reader().orderbook[books[kind]](filter);
    assert.equal(count, orders.length);
    return orders.map(({ orderHash }) => names.get(orderHash) ?? orderHash);
  };
  const sorted = async (...rest) => (await book(...rest)).sort();

  const [apps, pools] = await Promise.all([
    publishAll(a, 'App', { app, volume: 5 }, {
      dear: { appprice: 9 }, cheap: { appprice: 1 }, middle: { appprice: 5, volume: 50 },
      data: { appprice: 2, datasetrestrict: dataset }, pool: { appprice: 3, workerpoolrestrict: workerpool }, person: { appprice: 4, requesterrestrict: PERSON },
      gpu: { appprice: 6, tag: ['gpu'] },
    }),
    publishAll(b, 'Workerpool', { workerpool, category: 0, volume: 5 }, {
      free: {}, second: { workerpoolprice: 2, category: 1 }, trusted: { workerpoolprice: 3, trust: 10 }, many: { workerpoolprice: 4, volume: 60 },
      app: { workerpoolprice: 5, apprestrict: app }, data: { workerpoolprice: 6, datasetrestrict: dataset }, person: { workerpoolprice: 7, requesterrestrict: PERSON },
      gpu: { workerpoolprice: 8, tag: ['gpu'] },
    }),
  ]);
  const [datasets, requests] = await Promise.all([
    publishAll(c, 'Dataset', { dataset }, {
      any: { datasetprice: 1 }, app: { datasetprice: 2, apprestrict: app }, pool: { datasetprice: 3, workerpoolrestrict: workerpool }, person: { datasetprice: 4, requesterrestrict: PERSON },
      many: { datasetprice: 5, volume: 100 }, bulk: { datasetprice: 0, volume: utils.DATASET_INFINITE_VOLUME },
    }),
    publishAll(b, 'Request', { app, appmaxprice: 9, category: 0 }, {
      low: { workerpoolmaxprice: 1 }, high: { workerpoolmaxprice: 9 }, other: { workerpoolmaxprice: 2, category: 1 }, pool: { workerpoolmaxprice: 3, workerpool },
      beneficiary: { workerpoolmaxprice: 4, beneficiary: PERSON }, trusting: { workerpoolmaxprice: 5, trust: 8 }, several: { workerpoolmaxprice: 6, volume: 7 },
    }),
  ]);
  const open = ['cheap', 'middle', 'gpu', 'dear'];

  await check('orderbook.fetchAppOrderbook: by app or owner, cheapest first', async () => {
    assert.deepEqual(await book('App', apps, { app }), open);
    assert.deepEqual(await book('App', apps, { appOwner: alice.address }), open);
    assert.deepEqual(await book('App', apps, { app, appOwner: bob.address }), []);
    assert.deepEqual(await book('App', apps, { app: OTHER }), []);
    await refuses(reader().orderbook.fetchAppOrderbook({}), 'Error', 'app or appOwner is required');
  });
  await check('orderbook.fetchAppOrderbook: restrictions, loose and strict', async () => {
    assert.deepEqual(await sorted('App', apps, { app, dataset }), [...open, 'data'].sort());
    assert.deepEqual(await book('App', apps, { app, dataset, isDatasetStrict: true }), ['data']);
    assert.deepEqual(await book('App', apps, { app, workerpool, isWorkerpoolStrict: true }), ['pool']);
    assert.deepEqual(await sorted('App', apps, { app, requester: PERSON }), [...open, 'person'].sort());
    assert.deepEqual(await book('App', apps, { app, requester: PERSON, isRequesterStrict: true }), ['person']);
    assert.deepEqual(await sorted('App', apps, { app, requester: 'any', dataset: 'any', workerpool: 'any' }), [...apps.values()].sort());
    assert.deepEqual(await sorted('App', apps, { app, requester: OTHER }), [...open].sort());
  });
  await check('orderbook.fetchAppOrderbook: tags and volume', async () => {
    assert.deepEqual(await book('App', apps, { app, minTag: ['tee', 'gpu'] }), ['gpu']);
    assert.deepEqual(await book('App', apps, { app, maxTag: TEE }), ['cheap', 'middle', 'dear']);
    assert.deepEqual(await book('App', apps, { app, minVolume: 6 }), ['middle']);
  });
  await check('orderbook.fetchAppOrderbook: pages, one after the other with more()', async () => {
    const { dave } = await wallets({ dave: {} });
    const d = as(dave);
    const own = (await d.app.deployApp(probe(dave, 'many'))).address;
    for (let price = 0; price < 23; price += 1) await publish(d, 'App', { app: own, appprice: price });
    const first = await reader().orderbook.fetchAppOrderbook({ app: own, pageSize: 10 });
    assert.deepEqual([first.count, first.orders.map(({ order }) => order.appprice)], [23, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]]);
    const second = await first.more();
    const third = await second.more();
    assert.deepEqual(third.orders.map(({ order }) => order.appprice), [20, 21, 22]);
    assert.equal(third.more, undefined);
    const page = await reader().orderbook.fetchAppOrderbook({ app: own, pageSize: 10, page: 1 });
    assert.deepEqual(page.orders.map(({ order }) => order.appprice), second.orders.map(({ order }) => order.appprice));
  });
  await check('orderbook.fetchDatasetOrderbook: by dataset, owner, restrictions, volume and bulk', async () => {
    const free = ['bulk', 'any', 'many'];
    assert.deepEqual(await book('Dataset', datasets, { dataset }), free);
    assert.deepEqual(await book('Dataset', datasets, { datasetOwner: carol.address }), free);
    await refuses(reader().orderbook.fetchDatasetOrderbook({}), 'Error', 'dataset or datasetOwner is required');
    assert.deepEqual(await sorted('Dataset', datasets, { dataset, app }), [...free, 'app'].sort());
    assert.deepEqual(await book('Dataset', datasets, { dataset, app, isAppStrict: true }), ['app']);
    assert.deepEqual(await book('Dataset', datasets, { dataset, workerpool, isWorkerpoolStrict: true }), ['pool']);
    assert.deepEqual(await book('Dataset', datasets, { dataset, requester: PERSON, isRequesterStrict: true }), ['person']);
    assert.deepEqual(await sorted('Dataset', datasets, { dataset, app: 'any', workerpool: 'any', requester: 'any' }), [...datasets.values()].sort());
    assert.deepEqual(await book('Dataset', datasets, { dataset, minVolume: 50 }), ['bulk', 'many']);
    assert.deepEqual(await book('Dataset', datasets, { dataset, bulkOnly: true }), ['bulk']);
    assert.deepEqual(await book('Dataset', datasets, { dataset, minTag: ['gpu'] }), []);
    const { orders } = await reader().orderbook.fetchDatasetOrderbook({ dataset, bulkOnly: true });
    assert.deepEqual([orders[0].order.volume, orders[0].order.datasetprice, orders[0].remaining], [utils.DATASET_INFINITE_VOLUME, 0, utils.DATASET_INFINITE_VOLUME]);
  });
  await check('orderbook.fetchWorkerpoolOrderbook: by pool, owner, category, trust, tags, volume and restrictions', async () => {
    const free = ['free', 'second', 'trusted', 'many', 'gpu'];
    assert.deepEqual(await book('Workerpool', pools, { workerpool }), free);
    assert.deepEqual(await book('Workerpool', pools, { workerpoolOwner: bob.address }), free);
    assert.deepEqual(await book('Workerpool', pools, { workerpool, category: 1 }), ['second']);
    assert.deepEqual(await book('Workerpool', pools, { workerpool, minTrust: 10 }), ['trusted']);
    assert.deepEqual(await book('Workerpool', pools, { workerpool, minVolume: 50 }), ['many']);
    assert.deepEqual(await book('Workerpool', pools, { workerpool, minTag: ['gpu'] }), ['gpu']);
    assert.deepEqual(await book('Workerpool', pools, { workerpool, maxTag: TEE }), ['free', 'second', 'trusted', 'many']);
    assert.deepEqual(await book('Workerpool', pools, { workerpool, app, isAppStrict: true }), ['app']);
    assert.deepEqual(await book('Workerpool', pools, { workerpool, dataset, isDatasetStrict: true }), ['data']);
    assert.deepEqual(await book('Workerpool', pools, { workerpool, requester: PERSON, isRequesterStrict: true }), ['person']);
    assert.deepEqual(await sorted('Workerpool', pools, { workerpool, app: 'any', dataset: 'any', requester: 'any' }), [...pools.values()].sort());
    assert.ok((await reader().orderbook.fetchWorkerpoolOrderbook()).count >= free.length);
  });
  await check('orderbook.fetchRequestOrderbook: by requester, beneficiary, app, category, pool, trust and volume; dearest first', async () => {
    const free = ['high', 'several', 'trusting', 'beneficiary', 'other', 'low'];
    const all = [...requests.values()];
    const mine = { requester: bob.address };
    assert.deepEqual(await book('Request', requests, mine), free);
    assert.deepEqual(await book('Request', requests, { app }), free);
    assert.deepEqual(await book('Request', requests, { beneficiary: PERSON }), ['beneficiary']);
    assert.deepEqual(await book('Request', requests, { ...mine, category: 1 }), ['other']);
    assert.deepEqual(await book('Request', requests, { ...mine, workerpool, isWorkerpoolStrict: true }), ['pool']);
    assert.deepEqual(await sorted('Request', requests, { ...mine, workerpool: 'any' }), all.sort());
    assert.deepEqual(await book('Request', requests, { ...mine, minVolume: 5 }), ['several']);
    assert.deepEqual(await book('Request', requests, { ...mine, maxTrust: 5 }), free.filter((name) => name !== 'trusting'));
    assert.deepEqual(await book('Request', requests, { ...mine, minTag: ['gpu'] }), []);
    assert.deepEqual(await book('Request', requests, { requester: OTHER }), []);
  });
});
