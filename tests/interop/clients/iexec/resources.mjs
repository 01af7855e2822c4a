// Apps, datasets and workerpools: predict, deploy, show, count, transfer; the dataset's encryption.
import { createDecipheriv, createHash } from 'node:crypto';
import { utils } from 'iexec';
import { assert, configuration, context, flow, network, refuses } from '../../harness.mjs';
import { as, bytes32, probe, reader, text } from './_people.mjs';

const NOBODY = '0x' + '77'.repeat(20);

await flow(async ({ check, wallets }) => {
  const { alice, bob, carol } = await wallets({ alice: {}, bob: {}, carol: {} });
  const checksum = bytes32();
  const kinds = [
    {
      kind: 'App',
      registry: network.contracts.app_registry,
      members: (owner) => ({ ...probe(owner, 'the app'), checksum }),
      shown: { appName: 'the app', appType: 'DOCKER', appMultiaddr: context.app.multiaddr.replace('/ipfs/', '/p2p/'), appChecksum: checksum, appMREnclave: '' },
    },
    {
      kind: 'Dataset',
      registry: network.contracts.dataset_registry,
      members: (owner) => ({ owner: owner.address, name: 'the data', multiaddr: 'https://example.org/data.bin', checksum }),
      shown: { datasetName: 'the data', datasetMultiaddr: 'https://example.org/data.bin', datasetChecksum: checksum },
    },
    {
      kind: 'Workerpool',
      registry: network.contracts.workerpool_registry,
      members: (owner) => ({ owner: owner.address, description: 'the pool' }),
      shown: { workerpoolDescription: 'the pool' },
    },
  ];

  /** Everything of one kind, as one person with transactions one after the other. */
  async function whole({ kind, registry, members, shown }, owner) {
    const module = kind.toLowerCase();
    const name = (method) => `${module}.${method}`;
    const of = (client) => client[module];
    const [mine, theirs] = [of(as(owner)), of(as(bob))];
    const predicted = await check(`${name(`predict${kind}Address`)}: before it is there`, async () => {
      const address = await of(reader())[`predict${kind}Address`](members(owner));
      assert.match(address, /^0x[0-9a-fA-F]{40}$/);
      assert.equal(await of(reader())[`checkDeployed${kind}`](address), false);
      return address;
    });
    await check(`${name(`count${kind === 'App' ? 'UserApps' : `User${kind}s`}`)}: none yet`, async () => {
      assert.equal(text(await of(reader())[`countUser${kind}s`](owner.address)), '0');
    });
    const address = await check(`${name(`deploy${kind}`)}: at the predicted address, once`, async () => {
      const deployed = await mine[`deploy${kind}`](members(owner));
      assert.equal(deployed.address, predicted);
      assert.match(deployed.txHash, /^0x[0-9a-f]{64}$/);
      await refuses(mine[`deploy${kind}`](members(owner)), 'Error', `${kind} already deployed at address ${predicted}`);
      return deployed.address;
    });
    await check(`${name(`checkDeployed${kind}`)}: true for this one, false for another`, async () => {
      assert.equal(await of(reader())[`checkDeployed${kind}`](address), true);
      assert.equal(await of(reader())[`checkDeployed${kind}`](NOBODY), false);
    });
    await check(`${name(`show${kind}`)}: what was deployed`, async () => {
      const { objAddress, [module]: entry } = await of(reader())[`show${kind}`](address.toLowerCase());
      assert.equal(objAddress, address);
      const { owner: held, registry: by, ...rest } = entry;
      const plain = Object.fromEntries(Object.entries(rest).map(([key, value]) => [key, typeof value === 'string' ? value : text(value)]));
      const policies = kind === 'Workerpool' ? { workerStakeRatioPolicy: '30', schedulerRewardRatioPolicy: '1' } : {};
      assert.deepEqual(plain, { ...shown, ...policies });
      assert.deepEqual([held, by], [owner.address, registry]);
      await refuses(of(reader())[`show${kind}`](NOBODY), 'ObjectNotFoundError', `No ${module} found for id ${NOBODY} on chain 421614`);
    });
    await check(`${name(`showUser${kind}`)}: by its number among the owner’s`, async () => {
      const seen = await of(reader())[`showUser${kind}`](0, owner.address);
      assert.equal(seen.objAddress, address);
      await refuses(of(reader())[`showUser${kind}`](5, owner.address), 'Error', `${module} not deployed`);
    });
    await check(`${name(`countUser${kind}s`)}: one now`, async () => {
      assert.equal(text(await mine[`countUser${kind}s`](owner.address)), '1');
    });
    await check(`${name(`transfer${kind}`)}: only by its owner; then it is the other’s`, async () => {
      await refuses(theirs[`transfer${kind}`](address, bob.address), 'Error', `Only ${module} owner can transfer ${module} ownership`);
      const moved = await mine[`transfer${kind}`](address, bob.address);
      assert.deepEqual([moved.address, moved.to], [address, bob.address]);
      assert.equal((await of(reader())[`show${kind}`](address))[module].owner, bob.address);
      assert.equal(text(await mine[`countUser${kind}s`](owner.address)), '0');
    });
  }
  const people = [alice, carol, (await wallets({ dave: {} })).dave];
  await Promise.all(kinds.map((kind, place) => whole(kind, people[place])));

  await check('app.deployApp: any image reference is kept as text; an unknown type is refused', async () => {
    const { address } = await as(alice).app.deployApp({ ...probe(alice, 'image'), multiaddr: 'registry.example.org/app:1.0.0' });
    const { app } = await reader().app.showApp(address);
    assert.equal(app.appMultiaddr, 'registry.example.org/app:1.0.0');
    await refuses(as(alice).app.deployApp({ ...probe(alice), type: 'VM' }), 'ValidationError', /type/);
  });

  await check('dataset.generateEncryptionKey, dataset.encrypt, dataset.computeEncryptedFileChecksum: IV and AES-256-CBC', async () => {
    const { dataset } = reader();
    const key = dataset.generateEncryptionKey();
    assert.equal(Buffer.from(key, 'base64').length, 32);
    const sealed = Buffer.from(await dataset.encrypt(Buffer.from('hello'), key));
    const decipher = createDecipheriv('aes-256-cbc', Buffer.from(key, 'base64'), sealed.subarray(0, 16));
    assert.equal(Buffer.concat([decipher.update(sealed.subarray(16)), decipher.final()]).toString(), 'hello');
    assert.equal(await dataset.computeEncryptedFileChecksum(sealed), '0x' + createHash('sha256').update(sealed).digest('hex'));
    await refuses(dataset.encrypt(Buffer.from('hello'), 'c2hvcnQ='), 'ValidationError', 'c2hvcnQ= is not a valid encryption key (must be base64 encoded 256 bits key)');
  });

  await check('workerpool.getWorkerpoolApiUrl: from Compass; none for a pool that nobody runs', async () => {
    assert.equal(await reader().workerpool.getWorkerpoolApiUrl(network.workerpool), network.services.scheduler);
    assert.equal(await reader().workerpool.getWorkerpoolApiUrl(NOBODY), undefined);
    assert.equal(configuration.workerpool, network.workerpool);
    assert.equal(utils.NULL_ADDRESS.length, 42);
  });
});
