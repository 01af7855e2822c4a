// Orders of both frameworks: made, signed, published, found with every filter, withdrawn, closed; and what a match would cost.
import { assert, configuration, flow, mined, network, refuses } from '../../harness.mjs';
import { utils } from 'iexec8';
import { as, bytes32, probe, reader, SCONE, text } from './_people.mjs';

const NOBODY = utils.NULL_ADDRESS;
const TDX = utils.encodeTag(['tee', 'tdx']);
const SCONE_TAG = utils.encodeTag(['tee', 'scone']);
const KINDS = ['app', 'dataset', 'workerpool', 'request'];
const Kind = (kind) => kind[0].toUpperCase() + kind.slice(1);

await flow(async ({ check, wallets }) => {
  const people = await wallets({ alice: { stake: '1' }, bob: {}, carol: { stake: '1' }, requester: { stake: '1' }, poor: {} });
  const { alice, bob, carol, requester, poor } = people;
  const client = { app: as(alice), dataset: as(bob), workerpool: as(carol), request: as(requester) };
  const [app, scone, dataset, workerpool] = await Promise.all([
    client.app.app.deployApp(probe(alice, 'eight orders')).then(({ address }) => address),
    as(poor).app.deployApp(probe(poor, 'eight scone orders', SCONE)).then(({ address }) => address),
    client.dataset.dataset.deployDataset({ owner: bob.address, name: 'eight', multiaddr: 'https://data.example/x', checksum: bytes32() })
      .then(({ address }) => address),
    client.workerpool.workerpool.deployWorkerpool({ owner: carol.address, description: 'eight' }).then(({ address }) => address),
  ]);
  const key = client.dataset.dataset.generateEncryptionKey();
  await client.dataset.dataset.pushDatasetSecret(dataset, key);

  const wanted = {
    app: { app, appprice: '0.001 RLC', volume: 10, tag: ['tee', 'tdx'] },
    dataset: { dataset, datasetprice: 5, volume: 20, tag: TDX, apprestrict: app },
    workerpool: { workerpool, workerpoolprice: '0.01 RLC', volume: 3, category: 1, tag: ['tee', 'tdx'] },
    request: { app, appmaxprice: '0.001 RLC', dataset, datasetmaxprice: 5, workerpool, workerpoolmaxprice: '0.01 RLC',
      volume: 2, category: 1, tag: TDX, params: { iexec_args: 'hello' } },
  };
  const made = {
    app: { app, appprice: '1000000', volume: '10', tag: TDX, datasetrestrict: NOBODY, workerpoolrestrict: NOBODY, requesterrestrict: NOBODY },
    dataset: { dataset, datasetprice: '5', volume: '20', tag: TDX, apprestrict: app, workerpoolrestrict: NOBODY, requesterrestrict: NOBODY },
    workerpool: { workerpool, workerpoolprice: '10000000', volume: '3', category: '1', trust: '0', tag: TDX, apprestrict: NOBODY,
      datasetrestrict: NOBODY, requesterrestrict: NOBODY },
    request: { app, appmaxprice: '1000000', dataset, datasetmaxprice: '5', workerpool, workerpoolmaxprice: '10000000', volume: '2',
      category: '1', trust: '0', tag: TDX, requester: requester.address, beneficiary: requester.address, callback: NOBODY,
      params: { iexec_args: 'hello', iexec_result_storage_provider: 'ipfs' } },
  };
  const signed = {};
  const hashes = {};
  for (const kind of KINDS) {
    const { order } = client[kind];
    const name = `${Kind(kind)}order`;
    await check(`order.create${name}: every member, amounts in nRLC`, async () => {
      const created = await order[`create${name}`](wanted[kind]);
      assert.deepEqual({ ...created }, made[kind]);
    });
    await check(`order.sign${name}: by the owner alone, and the hub accepts it`, async () => {
      signed[kind] = await order[`sign${name}`](await order[`create${name}`](wanted[kind]));
      assert.match(signed[kind].sign, /^0x[0-9a-f]{130}$/);
      assert.match(signed[kind].salt, /^0x[0-9a-f]{64}$/);
      await refuses(as(poor).order[`sign${name}`](await order[`create${name}`](wanted[kind]), { preflightCheck: false }), 'Error',
        `Invalid order signer, must be the ${kind === 'request' ? 'requester' : 'resource owner'}`);
    });
    await check(`order.hash${name}: the market files it under the same hash`, async () => {
      hashes[kind] = await order[`hash${name}`](signed[kind]);
      assert.match(hashes[kind], /^0x[0-9a-f]{64}$/);
    });
    await check(`order.publish${name}: once`, async () => {
      assert.equal(await order[`publish${name}`](signed[kind], { preflightCheck: false }), hashes[kind]);
      await refuses(order[`publish${name}`](signed[kind], { preflightCheck: false }), 'Error', 'API error: order already published');
    });
  }

  const { orderbook } = reader();
  for (const kind of KINDS) {
    await check(`orderbook.fetch${Kind(kind)}order: the record of a hash`, async () => {
      const record = await orderbook[`fetch${Kind(kind)}order`](hashes[kind]);
      assert.deepEqual(
        [record.orderHash, record.status, record.remaining, record.chainId],
        [hashes[kind], 'open', Number(made[kind].volume), network.chain_id],
      );
      assert.equal(record.order.sign, signed[kind].sign);
      assert.equal(record.signer, { app: alice, dataset: bob, workerpool: carol, request: requester }[kind].address);
      await refuses(orderbook[`fetch${Kind(kind)}order`](bytes32()), 'Error', `API error: ${kind}order not found`);
    });
  }
  const found = (page) => page.orders.map(({ orderHash }) => orderHash);
  const only = (name) => [hashes[name]];
  await check('orderbook.fetchAppOrderbook: an address and options apart, or options alone', async () => {
    assert.deepEqual(found(await orderbook.fetchAppOrderbook(app)), only('app'));
    const page = await orderbook.fetchAppOrderbook(app, { minVolume: 10, minTag: ['tee'], maxTag: ['tee', 'tdx'] });
    assert.deepEqual([found(page), page.count], [only('app'), 1]);
    assert.deepEqual(found(await orderbook.fetchAppOrderbook(app, { minVolume: 11 })), []);
    assert.deepEqual(found(await orderbook.fetchAppOrderbook(app, { maxTag: ['tee'] })), []);
    assert.deepEqual(found(await orderbook.fetchAppOrderbook({ app, requester: poor.address, dataset, workerpool })), only('app'));
    assert.deepEqual(found(await orderbook.fetchAppOrderbook({ app, requester: poor.address, isRequesterStrict: true })), []);
    assert.deepEqual(found(await orderbook.fetchAppOrderbook({ appOwner: alice.address })), only('app'));
  });
  await check('orderbook.fetchDatasetOrderbook: restrictions hide an order from all but whom they name', async () => {
    assert.deepEqual(found(await orderbook.fetchDatasetOrderbook(dataset)), []);
    assert.deepEqual(found(await orderbook.fetchDatasetOrderbook(dataset, { app })), only('dataset'));
    assert.deepEqual(found(await orderbook.fetchDatasetOrderbook(dataset, { app, isAppStrict: true })), only('dataset'));
    assert.deepEqual(found(await orderbook.fetchDatasetOrderbook({ dataset, app: 'any' })), only('dataset'));
    assert.deepEqual(found(await orderbook.fetchDatasetOrderbook({ dataset, app: scone })), []);
    assert.deepEqual(found(await orderbook.fetchDatasetOrderbook({ datasetOwner: bob.address, app: 'any' })), only('dataset'));
  });
  await check('orderbook.fetchWorkerpoolOrderbook: by pool, owner, category, trust and tags', async () => {
    assert.deepEqual(found(await orderbook.fetchWorkerpoolOrderbook({ workerpool })), only('workerpool'));
    assert.deepEqual(found(await orderbook.fetchWorkerpoolOrderbook({ workerpoolOwner: carol.address, category: 1 })), only('workerpool'));
    assert.deepEqual(found(await orderbook.fetchWorkerpoolOrderbook({ workerpool, category: 0 })), []);
    assert.deepEqual(found(await orderbook.fetchWorkerpoolOrderbook({ workerpool, minTrust: 2 })), []);
    assert.deepEqual(found(await orderbook.fetchWorkerpoolOrderbook({ workerpool, minTag: SCONE_TAG })), []);
  });
  await check('orderbook.fetchWorkerpoolOrderbook: the network’s own pool offers tasks to SCONE-tagged requests', async () => {
    const { orders } = await orderbook.fetchWorkerpoolOrderbook({
      workerpool: configuration.workerpool, category: 0, minTag: SCONE_TAG, maxTag: SCONE_TAG,
    });
    assert.equal(orders.length, 1);
    assert.deepEqual([orders[0].order.tag, orders[0].order.workerpoolprice], [SCONE_TAG, 20_000_000]);
  });
  await check('orderbook.fetchRequestOrderbook: by requester, app, pool and category', async () => {
    const all = { requester: requester.address, workerpool };
    assert.deepEqual(found(await orderbook.fetchRequestOrderbook(all)), only('request'));
    assert.deepEqual(found(await orderbook.fetchRequestOrderbook({ ...all, app, dataset, category: 1, beneficiary: requester.address })), only('request'));
    assert.deepEqual(found(await orderbook.fetchRequestOrderbook({ ...all, maxTrust: 0, maxTag: ['tee', 'tdx'] })), only('request'));
    assert.deepEqual(found(await orderbook.fetchRequestOrderbook({ ...all, category: 0 })), []);
    assert.deepEqual(found(await orderbook.fetchRequestOrderbook({ ...all, app: scone })), []);
  });

  const all = () => ({ apporder: signed.app, datasetorder: signed.dataset, workerpoolorder: signed.workerpool, requestorder: signed.request });
  await check('order.estimateMatchOrders: volume, total and what a voucher would pay', async () => {
    const { volume, total, sponsored } = await client.request.order.estimateMatchOrders(all(), { preflightCheck: false });
    assert.deepEqual([text(volume), text(total), text(sponsored)], ['2', '22000010', '0']);
    await refuses(client.request.order.estimateMatchOrders(all(), { useVoucher: true }), 'ConfigurationError',
      'iExec Voucher is not available on network arbitrum-sepolia-testnet');
  });
  await check('order.matchOrders: what cannot be paid or is not what it says it is refused before the chain is asked', async () => {
    const theirs = as(poor).order;
    const broke = await theirs.signRequestorder(await theirs.createRequestorder(wanted.request), { preflightCheck: false });
    await refuses(theirs.matchOrders({ ...all(), requestorder: broke }, { preflightCheck: false }), 'Error',
      "Cost per task (11000005) is greater than requester account stake (0). Orders can't be matched. If you are the requester, you should deposit to top up your account");
    const other = { ...signed.request, sign: signed.app.sign };
    await refuses(client.request.order.matchOrders({ ...all(), requestorder: other }, { preflightCheck: false }), 'Error', 'requestorder invalid sign');
    await refuses(client.request.order.matchOrders(all(), { preflightCheck: false, useVoucher: true }), 'ConfigurationError',
      'iExec Voucher is not available on network arbitrum-sepolia-testnet');
  });
  await check('order.signApporder: checkAppRequirements compares the tag with the app’s framework', async () => {
    const signs = async (person, address, tag) => {
      const { order } = as(person);
      return (await order.signApporder(await order.createApporder({ app: address, tag }))).tag;
    };
    assert.equal(await signs(alice, app, ['tee', 'tdx']), TDX);
    assert.equal(await signs(alice, app, []), utils.NULL_BYTES32);
    assert.equal(await signs(poor, scone, ['tee', 'scone']), SCONE_TAG);
    const mismatch = 'Tag mismatch the TEE framework specified by app';
    await refuses(signs(alice, app, ['tee', 'scone']), 'Error', mismatch);
    await refuses(signs(poor, scone, ['tee', 'tdx']), 'Error', mismatch);
    await refuses(signs(poor, scone, ['tee', 'gramine']), 'Error', mismatch);
    await refuses(signs(poor, scone, []), 'Error', mismatch);
  });
  await check('order.publishApporder: an offer of a SCONE app under its own tag', async () => {
    const { order } = as(poor);
    const offer = await order.signApporder(await order.createApporder({ app: scone, volume: 4, tag: SCONE_TAG }));
    const hash = await order.publishApporder(offer);
    assert.deepEqual(found(await orderbook.fetchAppOrderbook(scone, { minTag: SCONE_TAG, maxTag: SCONE_TAG })), [hash]);
    assert.deepEqual(found(await orderbook.fetchAppOrderbook(scone, { minTag: TDX })), []);
    await refuses(order.signApporder(await order.createApporder({ app: scone, tag: TDX })), 'Error', 'Tag mismatch the TEE framework specified by app');
  });

  const record = async (kind) => (await orderbook[`fetch${Kind(kind)}order`](hashes[kind])).status;
  for (const kind of ['request', 'workerpool', 'dataset', 'app']) {
    const { order } = client[kind];
    const name = `${Kind(kind)}order`;
    const fresh = () => order[`create${name}`](wanted[kind]).then((made) => order[`sign${name}`](made, { preflightCheck: false }));
    const publish = async () => order[`publish${name}`](await fresh(), { preflightCheck: false });
    await check(`order.unpublish${name}, order.unpublishLast${name}, order.unpublishAll${name}s: one, the last, all`, async () => {
      assert.equal(await order[`unpublish${name}`](hashes[kind]), hashes[kind]);
      await refuses(order[`unpublish${name}`](hashes[kind]), 'Error', `API error: ${kind}order with orderHash ${hashes[kind]} is not published`);
      const first = await publish();
      const last = await publish();
      const subject = kind === 'request' ? requester.address : made[kind][kind];
      assert.equal(await order[`unpublishLast${name}`](subject), last);
      const next = await publish();
      assert.deepEqual((await order[`unpublishAll${name}s`](subject)).sort(), [first, next].sort());
    });
    await check(`order.publish${name}: again what was withdrawn`, async () => {
      if (kind === 'request') return;
      assert.equal(await order[`publish${name}`](signed[kind], { preflightCheck: false }), hashes[kind]);
    });
  }
  await Promise.all(KINDS.map((kind) =>
    check(`order.cancel${Kind(kind)}order: closed on chain for good`, async () => {
      const { order } = client[kind];
      const { order: closed, txHash } = await order[`cancel${Kind(kind)}order`](signed[kind]);
      assert.equal(closed.sign, signed[kind].sign);
      await mined(txHash);
      await refuses(order[`cancel${Kind(kind)}order`](signed[kind]), 'Error', `${kind}order already canceled`);
      await refuses(client.request.order.matchOrders(all(), { preflightCheck: false }), 'Error', /is fully consumed$/);
      if (kind !== 'request') {
        const end = Date.now() + 10_000;
        while ((await record(kind)) !== 'canceled') assert.ok(Date.now() < end, `${kind}order is still ${await record(kind)}`);
      }
    }),
  ));
  await check('order.prepareDatasetBulk: slices on the content store', async () => {
    const { order } = client.dataset;
    const bulk = async () => order.signDatasetorder(
      await order.createDatasetorder({ dataset, datasetprice: 0, volume: utils.DATASET_INFINITE_VOLUME, tag: TDX }), { preflightCheck: false });
    const orders = [await bulk(), await bulk(), await bulk()];
    const { cid, volume } = await client.request.order.prepareDatasetBulk(orders, { maxDatasetPerTask: 2, thegraphUpload: false });
    assert.equal(text(volume), '2');
    const load = async (name) => (await fetch(`${configuration.iexec8Options.ipfsGatewayURL}/ipfs/${name}`)).json();
    const slices = await Promise.all((await load(cid)).map(load));
    assert.deepEqual(slices.flat().map(({ sign }) => sign), orders.map(({ sign }) => sign));
  });
});
