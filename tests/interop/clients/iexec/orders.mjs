// Orders of the four kinds: create, hash, sign, publish, fetch, unpublish, cancel; and who may not.
import { TypedDataEncoder } from 'ethers';
import { utils } from 'iexec';
import { assert, deadUrl, flow, network, refuses } from '../../harness.mjs';
import { as, bytes32, probe, reader } from './_people.mjs';

const HASH = /^0x[0-9a-f]{64}$/;
const ZERO = utils.NULL_ADDRESS;
const TAG = utils.encodeTag(['tee', 'tdx']);

const field = (type, names) => names.split(' ').map((name) => ({ name, type }));
const [address, uint, b32] = ['address', 'uint256', 'bytes32'];
const TYPES = {
  App: [...field(address, 'app'), ...field(uint, 'appprice volume'), ...field(b32, 'tag'), ...field(address, 'datasetrestrict workerpoolrestrict requesterrestrict'), ...field(b32, 'salt')],
  Dataset: [...field(address, 'dataset'), ...field(uint, 'datasetprice volume'), ...field(b32, 'tag'), ...field(address, 'apprestrict workerpoolrestrict requesterrestrict'), ...field(b32, 'salt')],
  Workerpool: [...field(address, 'workerpool'), ...field(uint, 'workerpoolprice volume'), ...field(b32, 'tag'), ...field(uint, 'category trust'), ...field(address, 'apprestrict datasetrestrict requesterrestrict'), ...field(b32, 'salt')],
  Request: [
    ...field(address, 'app'), ...field(uint, 'appmaxprice'), ...field(address, 'dataset'), ...field(uint, 'datasetmaxprice'), ...field(address, 'workerpool'),
    ...field(uint, 'workerpoolmaxprice'), ...field(address, 'requester'), ...field(uint, 'volume'), ...field(b32, 'tag'), ...field(uint, 'category trust'),
    ...field(address, 'beneficiary callback'), ...field('string', 'params'), ...field(b32, 'salt'),
  ],
};
const domain = { name: 'iExecODB', version: '5.0.0', chainId: network.chain_id, verifyingContract: network.contracts.hub };

await flow(async ({ check, wallets }) => {
  const people = await wallets({ alice: { stake: '10' }, bob: {} });
  const { alice, bob } = people;
  const iexec = as(alice);
  const app = (await iexec.app.deployApp(probe(alice))).address;
  const dataset = (await iexec.dataset.deployDataset({ owner: alice.address, name: 'd', multiaddr: '/ipfs/QmSAY4mYRkCvdDzcD3A3sDeN5nChyn82p88xt7HhYHqXfi', checksum: bytes32() })).address;
  const workerpool = (await iexec.workerpool.deployWorkerpool({ owner: alice.address, description: 'pool' })).address;

  const kinds = {
    App: { create: { app, appprice: '0.001 RLC', volume: 3 }, created: { app, appprice: '1000000', volume: '3', tag: TAG, datasetrestrict: ZERO, workerpoolrestrict: ZERO, requesterrestrict: ZERO }, resource: app, signer: 'resource owner' },
    Dataset: { create: { dataset, datasetprice: 5, apprestrict: app }, created: { dataset, datasetprice: '5', volume: '1', tag: TAG, apprestrict: app, workerpoolrestrict: ZERO, requesterrestrict: ZERO }, resource: dataset, signer: 'resource owner' },
    Workerpool: { create: { workerpool, workerpoolprice: [1, 'nRLC'], category: 1, volume: 4 }, created: { workerpool, workerpoolprice: '1', volume: '4', tag: TAG, category: '1', trust: '0', apprestrict: ZERO, datasetrestrict: ZERO, requesterrestrict: ZERO }, resource: workerpool, signer: 'resource owner' },
    Request: {
      create: { app, category: 1, appmaxprice: '0.001 RLC', workerpoolmaxprice: '0.1 RLC', params: { iexec_args: 'a b' } },
      created: {
        app, appmaxprice: '1000000', dataset: ZERO, datasetmaxprice: '0', workerpool: ZERO, workerpoolmaxprice: '100000000', requester: alice.address, volume: '1', tag: TAG,
        category: '1', trust: '0', beneficiary: alice.address, callback: ZERO, params: { iexec_args: 'a b', iexec_result_storage_provider: 'ipfs' },
      },
      signer: 'requester',
    },
  };
  const call = (client, verb, kind, ...rest) => client.order[`${verb}${kind}order`](...rest);
  const fetched = (kind, hash) => reader().orderbook[`fetch${kind}order`](hash);
  const absent = (kind, hash) => refuses(fetched(kind, hash), 'Error', `API error: ${kind.toLowerCase()}order not found`);

  // One kind after the other: the market gives one address one login at a time.
  for (const [kind, { create, created, resource, signer }] of Object.entries(kinds)) {
    const name = (verb) => `order.${verb}${kind}order`;
    const label = `${kind.toLowerCase()}order`;
    const order = await check(`${name('create')}: defaults, units, the tag of a TDX enclave`, async () => {
      const made = await call(iexec, 'create', kind, create);
      assert.deepEqual(made, created);
      return made;
    });
    const signed = await check(`${name('sign')}: by the owner; nobody else`, async () => {
      const done = await call(iexec, 'sign', kind, order, { preflightCheck: false });
      assert.match(done.salt, HASH);
      assert.match(done.sign, /^0x[0-9a-f]{130}$/);
      await refuses(call(as(bob), 'sign', kind, order, { preflightCheck: false }), 'Error', `Invalid order signer, must be the ${signer}`);
      return done;
    });
    await check(`${name('hash')}: the EIP-712 hash in the hub’s domain`, async () => {
      const { sign, ...message } = signed;
      assert.equal(await call(iexec, 'hash', kind, signed), TypedDataEncoder.hash(domain, { [`${kind}Order`]: TYPES[kind] }, message));
      assert.equal(sign.length, 132);
    });
    const publish = (order, client = iexec) => call(client, 'publish', kind, order, { preflightCheck: false });
    const hash = await check(`${name('publish')}: on the market, once, by its signer`, async () => {
      if (kind === 'Request') {
        assert.equal(signed.params, '{"iexec_result_storage_provider":"ipfs","iexec_args":"a b"}');
        const offer = await iexec.order.signApporder(await iexec.order.createApporder({ app, appprice: '0.001 RLC' }));
        await iexec.order.publishApporder(offer);
      }
      const hash = await publish(signed);
      assert.equal(hash, await call(iexec, 'hash', kind, signed));
      await refuses(publish(signed), 'Error', 'API error: order already published');
      await refuses(publish(signed, as(bob)), 'Error', /^API error: (only order signer 0x[0-9a-fA-F]{40} can publish an order|order already published)$/);
      await refuses(publish({ ...signed, salt: bytes32() }), 'Error', 'API error: invalid sign');
      return hash;
    });
    await check(`orderbook.fetch${kind}order: the record`, async () => {
      const record = await fetched(kind, hash);
      const numbers = (value) => Object.fromEntries(Object.entries(value).map(([key, one]) => [key, /price|volume|category|trust/.test(key) ? Number(one) : one]));
      assert.deepEqual(record.order, numbers(signed));
      assert.deepEqual([record.orderHash, record.chainId, record.remaining, record.status, record.signer], [hash, 421614, Number(created.volume), 'open', alice.address]);
      assert.match(record.publicationTimestamp, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
      await absent(kind, bytes32());
    });
    await check(`${name('unpublish')}: by its signer; then it is gone and may come back`, async () => {
      await refuses(call(as(bob), 'unpublish', kind, hash), 'Error', `API error: only order signer ${alice.address} can unpublish an order`);
      assert.equal(await call(iexec, 'unpublish', kind, hash), hash);
      await absent(kind, hash);
      await refuses(call(iexec, 'unpublish', kind, hash), 'Error', `API error: ${label} with orderHash ${hash} is not published`);
      assert.equal(await publish(signed), hash);
    });
    const another = async () => publish(await call(iexec, 'sign', kind, order, { preflightCheck: false }));
    await check(`${name('unpublishLast')}: the newest of the signer`, async () => {
      const newest = await another();
      assert.equal(await call(iexec, 'unpublishLast', kind, resource), newest);
      assert.equal((await fetched(kind, hash)).status, 'open');
    });
    await check(`order.unpublishAll${kind}orders: all of them`, async () => {
      const second = await another();
      const hashes = await iexec.order[`unpublishAll${kind}orders`](resource);
      assert.ok(hashes.includes(hash) && hashes.includes(second));
      await Promise.all([hash, second].map((one) => absent(kind, one)));
      const held = resource ? `for ${label.slice(0, -5)} ${resource}` : '';
      await refuses(iexec.order[`unpublishAll${kind}orders`](resource), 'Error', new RegExp(`^API error: no open ${label} published by signer ${alice.address}( ${held})?`));
    });
    await check(`${name('cancel')}: closes it on chain, once; the market says so`, async () => {
      await publish(signed).catch((error) => assert.fail(`publish again: ${error.message}`));
      const { order: closed, txHash } = await call(iexec, 'cancel', kind, signed);
      assert.match(txHash, HASH);
      assert.deepEqual(closed, signed);
      await refuses(call(iexec, 'cancel', kind, signed), 'Error', `${label} already canceled`);
      const status = async () => (await fetched(kind, hash)).status;
      for (let tries = 0; tries < 50 && (await status()) !== 'canceled'; tries += 1) await new Promise((done) => setTimeout(done, 100));
      assert.equal(await status(), 'canceled');
    });
  }

  await check('order.createRequestorder: what is malformed is named', async () => {
    await refuses(iexec.order.createRequestorder({ app }), 'ValidationError', 'category is a required field');
    await refuses(iexec.order.createRequestorder({ app: 'nobody', category: 0 }), 'ValidationError', 'nobody is not a valid ethereum address');
    const made = await iexec.order.createRequestorder({ app, category: 0, params: 'just words' });
    assert.deepEqual(made.params, { iexec_args: 'just words', iexec_result_storage_provider: 'ipfs' });
  });
  await check('order.signApporder: a legacy framework is refused', async () => {
    const order = await iexec.order.createApporder({ app });
    await refuses(iexec.order.signApporder({ ...order, tag: utils.encodeTag(['tee', 'scone']) }), 'Error', /^Unsupported legacy TEE framework tag \('scone'\)/);
  });
  await check('orderbook.fetchApporder: a dead market is named', () =>
    refuses(reader({ iexecGatewayURL: deadUrl }).orderbook.fetchApporder(bytes32()), 'MarketCallError', `Market API error: Connection to ${deadUrl} failed with a network error`));
});
