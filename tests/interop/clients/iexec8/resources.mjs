// Apps of both frameworks, datasets and workerpools on chain; secrets, storage tokens and result keys in the SMS.
import { createHash, generateKeyPairSync, randomBytes, randomUUID } from 'node:crypto';
import { assert, configuration, flow, keepSecret, network, refuses } from '../../harness.mjs';
import { as, bytes32, probe, reader, SCONE, text } from './_people.mjs';

const HASH = /^0x[0-9a-f]{64}$/;

await flow(async ({ check, wallets }) => {
  const people = await wallets({ alice: {}, bob: {}, carol: {}, dave: {}, erin: {} });
  const { alice, bob, carol, dave, erin } = people;
  await Promise.all([apps(alice), datasets(bob), workerpools(carol), secrets(dave), tokens(erin)]);

  async function apps(person) {
    const { app } = as(person);
    const tdx = probe(person, 'eight tdx');
    const scone = probe(person, 'eight scone', SCONE);
    const { address, txHash } = (await check('app.deployApp: one without a framework part, one for SCONE', async () => {
      const deployed = await app.deployApp(tdx);
      await app.deployApp(scone);
      return deployed;
    })) ?? {};
    await check('app.predictAppAddress, app.checkDeployedApp: the address before and after', async () => {
      assert.match(txHash, HASH);
      assert.equal(await app.predictAppAddress(tdx), address);
      assert.equal(await app.checkDeployedApp(address), true);
      const other = await app.predictAppAddress({ ...tdx, name: 'never deployed' });
      assert.equal(await app.checkDeployedApp(other), false);
      await refuses(app.deployApp(tdx), 'Error', `App already deployed at address ${address}`);
    });
    await check('app.deployApp: a framework part with other members is refused', () =>
      refuses(app.deployApp(probe(person, 'x', { ...SCONE, foo: 'bar' })), 'ValidationError', 'Unknown key "foo" in mrenclave'));
    await check('app.showApp: what was deployed', async () => {
      const { objAddress, app: shown } = await reader().app.showApp(address);
      assert.equal(objAddress, address);
      assert.deepEqual(
        [shown.appName, shown.appType, shown.appMultiaddr, shown.appChecksum, shown.appMREnclave, shown.owner],
        [tdx.name, 'DOCKER', tdx.multiaddr.replace('/ipfs/', '/p2p/'), tdx.checksum, '', person.address],
      );
      assert.equal(shown.registry.toLowerCase(), network.contracts.app_registry.toLowerCase());
    });
    await check('app.countUserApps, app.showUserApp: by owner and place', async () => {
      assert.equal(text(await app.countUserApps(person.address)), '2');
      const { objAddress, app: shown } = await app.showUserApp(1, person.address);
      assert.equal(objAddress, await app.predictAppAddress(scone));
      assert.deepEqual(JSON.parse(shown.appMREnclave), SCONE);
      await refuses(app.showUserApp(2, person.address), 'Error', 'app not deployed');
    });
    await check('app.checkAppSecretExists, app.pushAppSecret: once, by the owner, wherever the framework is', async () => {
      const secret = keepSecret(randomUUID());
      assert.equal(await app.checkAppSecretExists(address), false);
      await refuses(as(bob).app.pushAppSecret(address, secret), 'Error', `Wallet ${bob.address} is not allowed to set secret for ${address}`);
      assert.equal(await app.pushAppSecret(address, secret), true);
      assert.equal(await app.checkAppSecretExists(address), true);
      await refuses(app.pushAppSecret(address, secret), 'Error', `Secret already exists for ${address} and can't be updated`);
      const second = await app.predictAppAddress(scone);
      assert.equal(await app.checkAppSecretExists(second, { teeFramework: 'scone' }), false);
      assert.equal(await app.pushAppSecret(second, secret, { teeFramework: 'scone' }), true);
      assert.equal(await app.checkAppSecretExists(second), true);
    });
    await check('app.transferApp: to another; the former owner may not any more', async () => {
      const { address: moved, to, txHash: hash } = await app.transferApp(address, erin.address);
      assert.deepEqual([moved, to], [address, erin.address]);
      assert.match(hash, HASH);
      assert.equal((await app.showApp(address)).app.owner, erin.address);
      await refuses(app.transferApp(address, bob.address), 'Error', 'Only app owner can transfer app ownership');
    });
  }

  async function datasets(person) {
    const { dataset } = as(person);
    const key = keepSecret(dataset.generateEncryptionKey());
    const plain = Buffer.from('what only the app may read');
    const sealed = await check('dataset.generateEncryptionKey, dataset.encrypt: IV and AES-256-CBC under a key of 32 bytes', async () => {
      assert.equal(Buffer.from(key, 'base64').length, 32);
      const bytes = Buffer.from(await dataset.encrypt(plain, key));
      assert.equal(bytes.length, 16 + 32);
      assert.notEqual(dataset.generateEncryptionKey(), key);
      return bytes;
    });
    const checksum = await check('dataset.computeEncryptedFileChecksum: SHA-256 of what is stored', async () => {
      const sum = await dataset.computeEncryptedFileChecksum(sealed);
      assert.equal(sum, '0x' + createHash('sha256').update(sealed).digest('hex'));
      return sum;
    });
    const members = { owner: person.address, name: 'eight', multiaddr: 'https://data.example/eight.bin', checksum };
    const address = await check('dataset.predictDatasetAddress, dataset.checkDeployedDataset, dataset.deployDataset: foreseen and made', async () => {
      const foreseen = await dataset.predictDatasetAddress(members);
      assert.equal(await dataset.checkDeployedDataset(foreseen), false);
      const deployed = await dataset.deployDataset(members);
      assert.equal(deployed.address, foreseen);
      assert.match(deployed.txHash, HASH);
      assert.equal(await dataset.checkDeployedDataset(foreseen), true);
      return foreseen;
    });
    await check('dataset.showDataset, dataset.showUserDataset, dataset.countUserDatasets: what was deployed', async () => {
      assert.equal(text(await dataset.countUserDatasets(person.address)), '1');
      const shown = await dataset.showDataset(address);
      assert.deepEqual(
        { ...shown.dataset, registry: shown.dataset.registry.toLowerCase() },
        { datasetName: 'eight', datasetMultiaddr: members.multiaddr, datasetChecksum: checksum, owner: person.address,
          registry: network.contracts.dataset_registry.toLowerCase() },
      );
      assert.deepEqual(await dataset.showUserDataset(0, person.address), shown);
    });
    await check('dataset.checkDatasetSecretExists, dataset.pushDatasetSecret: once, by the owner', async () => {
      assert.equal(await dataset.checkDatasetSecretExists(address), false);
      await refuses(as(alice).dataset.pushDatasetSecret(address, key), 'Error', `Wallet ${alice.address} is not allowed to set secret for ${address}`);
      assert.equal(await dataset.pushDatasetSecret(address, key, { teeFramework: 'tdx' }), true);
      assert.equal(await dataset.checkDatasetSecretExists(address), true);
      assert.equal(await dataset.checkDatasetSecretExists(address, { teeFramework: 'scone' }), true);
      await refuses(dataset.pushDatasetSecret(address, key), 'Error', `Secret already exists for ${address} and can't be updated`);
    });
    await check('dataset.transferDataset: to another', async () => {
      const { address: moved, to, txHash } = await dataset.transferDataset(address, erin.address);
      assert.deepEqual([moved, to], [address, erin.address]);
      assert.match(txHash, HASH);
      assert.equal((await dataset.showDataset(address)).dataset.owner, erin.address);
    });
  }

  async function workerpools(person) {
    const { workerpool } = as(person);
    const members = { owner: person.address, description: 'eight' };
    const address = await check('workerpool.predictWorkerpoolAddress, workerpool.checkDeployedWorkerpool, workerpool.deployWorkerpool: foreseen and made', async () => {
      const foreseen = await workerpool.predictWorkerpoolAddress(members);
      assert.equal(await workerpool.checkDeployedWorkerpool(foreseen), false);
      const deployed = await workerpool.deployWorkerpool(members);
      assert.equal(deployed.address, foreseen);
      assert.match(deployed.txHash, HASH);
      assert.equal(await workerpool.checkDeployedWorkerpool(foreseen), true);
      return foreseen;
    });
    await check('workerpool.showWorkerpool, workerpool.showUserWorkerpool, workerpool.countUserWorkerpools: with its policy', async () => {
      assert.equal(text(await workerpool.countUserWorkerpools(person.address)), '1');
      const shown = await workerpool.showWorkerpool(address);
      const { workerpoolDescription, workerStakeRatioPolicy, schedulerRewardRatioPolicy, owner } = shown.workerpool;
      assert.deepEqual([workerpoolDescription, text(workerStakeRatioPolicy), text(schedulerRewardRatioPolicy), owner],
        ['eight', '30', '1', person.address]);
      assert.deepEqual(await workerpool.showUserWorkerpool(0, person.address), shown);
    });
    await check('workerpool.getWorkerpoolApiUrl: Compass knows the network’s own workerpool and no other', async () => {
      assert.equal(await workerpool.getWorkerpoolApiUrl(configuration.workerpool), network.services.scheduler);
      assert.equal(await workerpool.getWorkerpoolApiUrl(address), undefined);
    });
    await check('workerpool.transferWorkerpool: to another', async () => {
      const { to, txHash } = await workerpool.transferWorkerpool(address, erin.address);
      assert.equal(to, erin.address);
      assert.match(txHash, HASH);
      assert.equal((await workerpool.showWorkerpool(address)).workerpool.owner, erin.address);
    });
  }

  async function secrets(person) {
    const { secrets: vault } = as(person);
    await check('secrets.checkRequesterSecretExists, secrets.pushRequesterSecret: by name, once', async () => {
      const name = randomUUID();
      assert.equal(await vault.checkRequesterSecretExists(person.address, name), false);
      assert.deepEqual(await vault.pushRequesterSecret(name, keepSecret(randomUUID())), { isPushed: true });
      assert.equal(await reader().secrets.checkRequesterSecretExists(person.address, name), true);
      await refuses(vault.pushRequesterSecret(name, 'again'), 'Error', `Secret "${name}" already exists for ${person.address}`);
      await refuses(vault.checkRequesterSecretExists(person.address, 'not a name!'), 'Error', 'SMS answered with unexpected status: 400 Bad Request');
    });
    await check('secrets.pushRequesterSecret: every framework’s name leads to the same SMS', async () => {
      for (const teeFramework of ['scone', 'gramine', 'tdx']) {
        const name = `${teeFramework}-${randomBytes(4).toString('hex')}`;
        assert.deepEqual(await vault.pushRequesterSecret(name, keepSecret(randomUUID()), { teeFramework }), { isPushed: true });
        assert.equal(await vault.checkRequesterSecretExists(person.address, name), true);
        assert.equal(await vault.checkRequesterSecretExists(person.address, name, { teeFramework }), true);
      }
      await refuses(vault.pushRequesterSecret('x', 'y', { teeFramework: 'foo' }), 'ValidationError', 'teeFramework is not a valid TEE framework');
    });
    await check('secrets.pushRequesterSecret: smsURL for each framework', async () => {
      const { smsURL } = configuration.iexec8Options;
      const mapped = as(person, { smsURL: { scone: 'http://127.0.0.1:9', gramine: 'http://127.0.0.1:9', tdx: smsURL } }).secrets;
      const name = randomUUID();
      assert.deepEqual(await mapped.pushRequesterSecret(name, keepSecret(randomUUID()), { teeFramework: 'tdx' }), { isPushed: true });
      assert.equal(await mapped.checkRequesterSecretExists(person.address, name, { teeFramework: 'tdx' }), true);
      await refuses(mapped.checkRequesterSecretExists(person.address, name, { teeFramework: 'scone' }), 'SmsCallError',
        'SMS error: Connection to http://127.0.0.1:9 failed with a network error');
    });
    await check('result.checkResultEncryptionKeyExists, result.pushResultEncryptionKey: set, and replaced only on request', async () => {
      const { result } = as(person);
      const pem = () => generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey.export({ type: 'spki', format: 'pem' }).trim();
      assert.equal(await result.checkResultEncryptionKeyExists(person.address), false);
      assert.deepEqual(await result.pushResultEncryptionKey(pem()), { isPushed: true, isUpdated: false });
      assert.equal(await result.checkResultEncryptionKeyExists(person.address), true);
      await refuses(result.pushResultEncryptionKey(pem()), 'Error',
        `Secret "iexec-result-encryption-public-key" already exists for ${person.address}`);
      assert.deepEqual(await result.pushResultEncryptionKey(pem(), { forceUpdate: true, teeFramework: 'tdx' }), { isPushed: true, isUpdated: true });
    });
  }

  async function tokens(person) {
    const { storage } = as(person);
    const token = await check('storage.defaultStorageLogin: a token of the result proxy', async () => {
      const given = keepSecret(await storage.defaultStorageLogin());
      assert.match(given, /^[\w-]+\.[\w-]+\.[\w-]+$/);
      const claims = JSON.parse(Buffer.from(given.split('.')[1], 'base64url'));
      assert.equal(JSON.stringify(claims).toLowerCase().includes(person.address.toLowerCase()), true);
      return given;
    });
    await check('storage.checkStorageTokenExists, storage.pushStorageToken: the default storage and Dropbox', async () => {
      assert.equal(await storage.checkStorageTokenExists(person.address), false);
      assert.deepEqual(await storage.pushStorageToken(token), { isPushed: true, isUpdated: false });
      assert.equal(await storage.checkStorageTokenExists(person.address), true);
      assert.equal(await storage.checkStorageTokenExists(person.address, { provider: 'ipfs' }), true);
      assert.equal(await storage.checkStorageTokenExists(person.address, { provider: 'dropbox' }), false);
      assert.deepEqual(await storage.pushStorageToken(keepSecret(randomUUID()), { provider: 'dropbox', teeFramework: 'scone' }),
        { isPushed: true, isUpdated: false });
      assert.equal(await storage.checkStorageTokenExists(person.address, { provider: 'dropbox', teeFramework: 'tdx' }), true);
      await refuses(storage.pushStorageToken('other'), 'Error', `Secret "iexec-result-iexec-ipfs-token" already exists for ${person.address}`);
      assert.deepEqual(await storage.pushStorageToken('other', { forceUpdate: true }), { isPushed: true, isUpdated: true });
    });
  }
  await check('app.checkDeployedApp: nothing stands at an address of nobody', async () => {
    assert.equal(await reader().app.checkDeployedApp('0x' + bytes32().slice(2, 42)), false);
  });
});
