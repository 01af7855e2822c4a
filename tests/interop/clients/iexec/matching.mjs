// Matching four orders: the estimate, the deal, its tasks and hashes, and every refusal before a transaction.
import { concat, keccak256, zeroPadValue, toBeHex } from 'ethers';
import { utils } from 'iexec';
import { assert, configuration, flow, refuses } from '../../harness.mjs';
import { as, bytes32, probe, reader, text } from './_people.mjs';

const ZERO = utils.NULL_ADDRESS;
const PARAMS = String.raw`{"iexec_result_storage_provider":"ipfs","iexec_args":"one \"two three\""}`;
const NOBODY = '0x' + '77'.repeat(20);

await flow(async ({ check, wallets }) => {
  // The pool has nobody who runs it: what is matched here waits.
  const { alice, pool, requester, poor } = await wallets({ alice: {}, pool: { stake: '0.000000100' }, requester: { stake: '1' }, poor: { stake: '0.000000001' } });
  const [owner, keeper, iexec] = [as(alice), as(pool), as(requester)];
  const [app, workerpool] = await Promise.all([
    owner.app.deployApp(probe(alice)).then((done) => done.address),
    keeper.workerpool.deployWorkerpool({ owner: pool.address, description: 'nobody' }).then((done) => done.address),
  ]);
  const dataset = (await owner.dataset.deployDataset({ owner: alice.address, name: 'd', multiaddr: '/ipfs/QmSAY4mYRkCvdDzcD3A3sDeN5nChyn82p88xt7HhYHqXfi', checksum: bytes32() })).address;
  await owner.dataset.pushDatasetSecret(dataset, owner.dataset.generateEncryptionKey());

  const off = { preflightCheck: false };
  const appOffer = async (over = {}) => owner.order.signApporder(await owner.order.createApporder({ app, appprice: 10, volume: 100, ...over }));
  const dataOffer = async (over = {}) => owner.order.signDatasetorder(await owner.order.createDatasetorder({ dataset, datasetprice: 20, volume: 100, ...over }));
  const poolOffer = async (over = {}) => keeper.order.signWorkerpoolorder(await keeper.order.createWorkerpoolorder({ workerpool, workerpoolprice: 30, category: 0, volume: 100, ...over }));
  const ask = async (over = {}, client = iexec) =>
    client.order.signRequestorder(await client.order.createRequestorder({ app, dataset, category: 0, appmaxprice: 10, datasetmaxprice: 20, workerpoolmaxprice: 30, ...over }), off);
  const four = async (over = {}) => ({ apporder: await appOffer(), datasetorder: await dataOffer(), workerpoolorder: await poolOffer(), requestorder: await ask(), ...over });
  const volume = async (client = reader()) => text((await client.account.checkBalance(requester.address)).locked);

  await check('order.estimateMatchOrders: volume and the sum of the prices', async () => {
    const seen = await reader().order.estimateMatchOrders(await four({ requestorder: await ask({ volume: 3 }) }));
    assert.deepEqual([text(seen.volume), text(seen.total)], ['3', '180']);
    const free = await reader().order.estimateMatchOrders(await four({ datasetorder: undefined, requestorder: await ask({ dataset: ZERO, datasetmaxprice: 0 }) }));
    assert.deepEqual([text(free.volume), text(free.total)], ['1', '40']);
  });

  const orders = await four({ requestorder: await ask({ volume: 2, params: 'one "two three"' }) });
  const made = await check('order.matchOrders: the deal of the request’s hash; money is locked', async () => {
    const { dealid, volume: matched, txHash } = await iexec.order.matchOrders(orders);
    const hash = await iexec.order.hashRequestorder(orders.requestorder);
    assert.equal(dealid, keccak256(concat([hash, zeroPadValue('0x00', 32)])));
    assert.equal(text(matched), '2');
    assert.match(txHash, /^0x[0-9a-f]{64}$/);
    assert.equal(await volume(), '120');
    assert.equal(text((await reader().account.checkBalance(pool.address)).locked), '18');
    return { dealid };
  });

  await check('deal.show: all of it, with its tasks', async () => {
    const deal = await reader().deal.show(made.dealid);
    const who = ({ pointer, owner: of, price }) => [pointer, of, text(price)];
    assert.deepEqual(who(deal.app), [app, alice.address, '10']);
    assert.deepEqual(who(deal.dataset), [dataset, alice.address, '20']);
    assert.deepEqual(who(deal.workerpool), [workerpool, pool.address, '30']);
    assert.deepEqual([deal.dealid, deal.requester, deal.beneficiary, deal.callback], [made.dealid, requester.address, requester.address, ZERO]);
    assert.deepEqual([deal.category, deal.trust, deal.botFirst, deal.botSize, deal.workerStake, deal.schedulerRewardRatio].map(text), ['0', '1', '0', '2', '9', '1']);
    assert.equal(deal.params, PARAMS);
    assert.equal(deal.tag, utils.encodeTag(['tee', 'tdx']));
    assert.deepEqual(Object.values(deal.tasks), [0, 1].map((index) => keccak256(concat([made.dealid, zeroPadValue(toBeHex(index), 32)]))));
    assert.equal(deal.deadlineReached, false);
    assert.equal(text(deal.finalTime), String(Number(deal.startTime) + 3000));
    const unknown = bytes32();
    await refuses(reader().deal.show(unknown), 'ObjectNotFoundError', `No deal found for id ${unknown} on chain 421614`);
  });
  await check('deal.computeTaskId: keccak of deal and index', async () => {
    assert.equal(await reader().deal.computeTaskId(made.dealid, 1), keccak256(concat([made.dealid, zeroPadValue('0x01', 32)])));
  });
  await check('deal.claim: nothing before the deadline', () =>
    refuses(iexec.deal.claim(made.dealid), 'Error', /^Cannot claim a deal before reaching the final time: /));

  const seen = async (look) => {
    for (let tries = 0; tries < 100; tries += 1) {
      const { count, deals } = await look();
      if (count) return deals.map((deal) => deal.dealid);
      await new Promise((done) => setTimeout(done, 100));
    }
    return assert.fail('the market knows no such deal');
  };
  for (const [kind, order] of [['Apporder', orders.apporder], ['Datasetorder', orders.datasetorder], ['Workerpoolorder', orders.workerpoolorder], ['Requestorder', orders.requestorder]]) {
    await check(`deal.fetchDealsBy${kind}: by the order’s hash`, async () => {
      const hash = await iexec.order[`hash${kind}`](order);
      assert.deepEqual(await seen(() => reader().deal[`fetchDealsBy${kind}`](hash)), [made.dealid]);
      assert.deepEqual(await reader().deal[`fetchDealsBy${kind}`](bytes32()).then(({ count, deals }) => [count, deals]), [0, []]);
    });
  }
  await check('deal.fetchRequesterDeals: of a requester, by app, dataset, pool and page', async () => {
    const { fetchRequesterDeals } = reader().deal;
    const all = { appAddress: app, datasetAddress: dataset, workerpoolAddress: workerpool, page: 0, pageSize: 10 };
    assert.deepEqual(await seen(() => fetchRequesterDeals(requester.address, all)), [made.dealid]);
    for (const other of [{ appAddress: NOBODY }, { datasetAddress: NOBODY }, { workerpoolAddress: NOBODY }]) {
      assert.equal((await fetchRequesterDeals(requester.address, { ...all, ...other })).count, 0);
    }
    assert.equal((await fetchRequesterDeals(alice.address)).count, 0);
    const [deal] = (await fetchRequesterDeals(requester.address)).deals;
    assert.deepEqual([deal.app.pointer, deal.app.price, deal.volume, deal.category, deal.params], [app, 10, 2, 0, PARAMS]);
  });

  // Everything that is refused before a transaction, with its text. `over` replaces orders of a good quartet.
  const estimate = (orders) => reader().order.estimateMatchOrders(orders);
  const refused = async (what, over, message) =>
    check(`order.estimateMatchOrders: refuses ${what}`, async () => refuses(estimate(await four(over)), 'Error', message));
  const good = await four();
  const broken = (order) => ({ ...order, salt: bytes32() });
  await Promise.all([
    refused('a broken app order', { apporder: broken(good.apporder) }, 'apporder invalid sign'),
    refused('a broken dataset order', { datasetorder: broken(good.datasetorder) }, 'datasetorder invalid sign'),
    refused('a broken workerpool order', { workerpoolorder: broken(good.workerpoolorder) }, 'workerpoolorder invalid sign'),
    refused('a broken request', { requestorder: broken(good.requestorder) }, 'requestorder invalid sign'),
    refused('an app that is none', { apporder: { ...good.apporder, app: NOBODY } }, `No app deployed at address ${NOBODY}`),
    refused('a dataset that is none', { datasetorder: { ...good.datasetorder, dataset: NOBODY } }, `No dataset deployed at address ${NOBODY}`),
    refused('a workerpool that is none', { workerpoolorder: { ...good.workerpoolorder, workerpool: NOBODY } }, `No workerpool deployed at address ${NOBODY}`),
    refused('another app than asked for', { requestorder: await ask({ app: dataset }) }, `app address mismatch between requestorder (${dataset}) and apporder (${app})`),
    refused('another dataset than asked for', { requestorder: await ask({ dataset: app }) }, `dataset address mismatch between requestorder (${app}) and datasetorder (${dataset})`),
    refused('another workerpool than asked for', { requestorder: await ask({ workerpool: app }) }, `workerpool address mismatch between requestorder (${app}) and workerpoolorder (${workerpool})`),
    refused('another category', { workerpoolorder: await poolOffer({ category: 1 }) }, 'category mismatch between requestorder (0) and workerpoolorder (1)'),
    refused('too little trust', { requestorder: await ask({ trust: 5 }) }, 'workerpoolorder trust is too low (expected 5, got 0)'),
    refused('missing tags', { requestorder: await ask({ tag: ['gpu'] }) }, 'Missing tags [gpu] in workerpoolorder'),
    refused('too high an app price', { apporder: await appOffer({ appprice: 11 }) }, 'appmaxprice too low (expected 11, got 10)'),
    refused('too high a dataset price', { datasetorder: await dataOffer({ datasetprice: 21 }) }, 'datasetmaxprice too low (expected 21, got 20)'),
    refused('too high a workerpool price', { workerpoolorder: await poolOffer({ workerpoolprice: 31 }) }, 'workerpoolmaxprice too low (expected 31, got 30)'),
    refused('a workerpool without the stake', { workerpoolorder: await poolOffer({ workerpoolprice: 1000 }), requestorder: await ask({ workerpoolmaxprice: 1000 }) },
      "workerpool required stake (300) is greater than workerpool owner's account stake (82). Orders can't be matched. If you are the workerpool owner, you should deposit to top up your account"),
  ]);
  await check('order.matchOrders: refuses what the requester cannot pay', async () => {
    const orders = await four({ requestorder: await ask({}, as(poor)) });
    await refuses(as(poor).order.matchOrders(orders), 'Error',
      "Cost per task (60) is greater than requester account stake (1). Orders can't be matched. If you are the requester, you should deposit to top up your account");
    const several = await four({ requestorder: await ask({ volume: 2, appmaxprice: 10 }, as(poor)) });
    await refuses(as(poor).order.matchOrders(several), 'Error', /^(Cost per task \(60\)|Total cost for 2 tasks \(120\)) is greater than requester account stake \(1\)\. Orders can't be matched\./);
  });
  await check('order.matchOrders: refuses secrets and keys that the SMS has not', async () => {
    const secret = await four({ requestorder: await ask({ params: { iexec_secrets: { 1: 'missing-secret' } } }) });
    await refuses(iexec.order.matchOrders(secret), 'Error', `Requester secret "missing-secret" is not set for requester ${requester.address} in the SMS. Requester secret provisioning will fail.`);
    const sealed = await four({ requestorder: await ask({ params: { iexec_result_encryption: true } }) });
    await refuses(iexec.order.matchOrders(sealed), 'Error', 'Beneficiary result encryption key is not set in the SMS. Result encryption will fail.');
  });
  await check('order.signRequestorder: the preflight looks for dataset secrets', async () => {
    const { address } = await owner.dataset.deployDataset({ owner: alice.address, name: 'no key', multiaddr: '/ipfs/QmSAY4mYRkCvdDzcD3A3sDeN5nChyn82p88xt7HhYHqXfi', checksum: bytes32() });
    const order = await owner.order.createDatasetorder({ dataset: address });
    await refuses(owner.order.signDatasetorder(order), 'Error', `Dataset encryption key is not set for dataset ${address} in the SMS. Dataset decryption will fail.`);
  });
  await check('order.matchOrders: refuses a consumed order', async () => {
    const requestorder = await ask();
    await iexec.order.matchOrders({ ...good, requestorder });
    await refuses(iexec.order.matchOrders({ ...good, requestorder }), 'Error', 'requestorder is fully consumed');
  });
  await check('order.prepareDatasetBulk: slices on the content store', async () => {
    const bulk = async () => owner.order.signDatasetorder(await owner.order.createDatasetorder({ dataset, datasetprice: 0, volume: utils.DATASET_INFINITE_VOLUME, requesterrestrict: requester.address }));
    const orders = [await bulk(), await bulk(), await bulk()];
    const { cid, volume: slices } = await iexec.order.prepareDatasetBulk(orders, { maxDatasetPerTask: 2, thegraphUpload: false });
    assert.equal(text(slices), '2');
    const get = async (name) => (await fetch(`${configuration.iexecOptions.ipfsGatewayURL}/ipfs/${name}`)).json();
    const root = await get(cid);
    assert.equal(root.length, 2);
    const found = (await Promise.all(root.map(get))).flat();
    assert.deepEqual(found.map((order) => order.sign), orders.map((order) => order.sign));
    const prepare = async (over) => iexec.order.prepareDatasetBulk([await dataOffer(over)], { thegraphUpload: false });
    await refuses(prepare({}), 'ValidationError', '[0].volume (100) is not valid for bulk datasetorder expected DATASET_INFINITE_VOLUME (9007199254740991)');
    await refuses(prepare({ volume: utils.DATASET_INFINITE_VOLUME }), 'ValidationError', '[0].datasetprice (20) is not valid for bulk datasetorder expected 0');
  });
});
