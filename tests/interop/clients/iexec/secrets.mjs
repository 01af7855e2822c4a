// Secrets at the SMS: of apps, datasets, requesters; storage tokens and result keys.
import { generateKeyPairSync } from 'node:crypto';
import { assert, deadUrl, flow, keepSecret, refuses } from '../../harness.mjs';
import { as, bytes32, probe, reader } from './_people.mjs';

await flow(async ({ check, wallets }) => {
  const { alice, bob } = await wallets({ alice: {}, bob: {} });
  const iexec = as(alice);
  const { address: app } = await iexec.app.deployApp(probe(alice));
  const { address: dataset } = await iexec.dataset.deployDataset({ owner: alice.address, name: 'd', multiaddr: '/ipfs/QmSAY4mYRkCvdDzcD3A3sDeN5nChyn82p88xt7HhYHqXfi', checksum: bytes32() });

  await check('app.checkAppSecretExists, app.pushAppSecret: by the owner, once', async () => {
    assert.equal(await reader().app.checkAppSecretExists(app), false);
    await refuses(as(bob).app.pushAppSecret(app, 'mine'), 'Error', `Wallet ${bob.address} is not allowed to set secret for ${app}`);
    assert.equal(await iexec.app.pushAppSecret(app, keepSecret('the secret of the app')), true);
    assert.equal(await reader().app.checkAppSecretExists(app), true);
    await refuses(iexec.app.pushAppSecret(app, 'another'), 'Error', `Secret already exists for ${app} and can't be updated`);
  });
  await check('dataset.checkDatasetSecretExists, dataset.pushDatasetSecret: by the owner, once', async () => {
    const key = keepSecret(iexec.dataset.generateEncryptionKey());
    assert.equal(await reader().dataset.checkDatasetSecretExists(dataset), false);
    await refuses(as(bob).dataset.pushDatasetSecret(dataset, key), 'Error', `Wallet ${bob.address} is not allowed to set secret for ${dataset}`);
    assert.equal(await iexec.dataset.pushDatasetSecret(dataset, key), true);
    assert.equal(await reader().dataset.checkDatasetSecretExists(dataset), true);
    await refuses(iexec.dataset.pushDatasetSecret(dataset, key), 'Error', `Secret already exists for ${dataset} and can't be updated`);
  });
  await check('secrets.checkRequesterSecretExists, secrets.pushRequesterSecret: by name, once', async () => {
    const { secrets } = iexec;
    assert.equal(await secrets.checkRequesterSecretExists(alice.address, 'my-secret'), false);
    assert.deepEqual(await secrets.pushRequesterSecret('my-secret', keepSecret('a value nobody sees')), { isPushed: true });
    assert.equal(await reader().secrets.checkRequesterSecretExists(alice.address, 'my-secret'), true);
    assert.equal(await reader().secrets.checkRequesterSecretExists(bob.address, 'my-secret'), false);
    await refuses(secrets.pushRequesterSecret('my-secret', 'other'), 'Error', `Secret "my-secret" already exists for ${alice.address}`);
    await refuses(secrets.pushRequesterSecret('a name', 'other'), 'Error', 'SMS answered with unexpected status: 400 Bad Request');
  });
  await check('secrets.pushRequesterSecret: 4096 bytes are accepted, one more is refused', async () => {
    assert.deepEqual(await iexec.secrets.pushRequesterSecret('largest', 'x'.repeat(4096)), { isPushed: true });
    await refuses(iexec.secrets.pushRequesterSecret('too-large', 'x'.repeat(4097)), 'Error', 'SMS answered with unexpected status: 400 Bad Request');
  });
  await check('storage.checkStorageTokenExists, storage.pushStorageToken: of a provider; replaced only when asked', async () => {
    const { storage } = iexec;
    assert.equal(await storage.checkStorageTokenExists(alice.address, 'dropbox'), false);
    assert.deepEqual(await storage.pushStorageToken(keepSecret('first token'), 'dropbox'), { isPushed: true, isUpdated: false });
    assert.equal(await reader().storage.checkStorageTokenExists(alice.address, 'dropbox'), true);
    await refuses(storage.pushStorageToken('second', 'dropbox'), 'Error', /already exists/);
    assert.deepEqual(await storage.pushStorageToken(keepSecret('second token'), 'dropbox', { forceUpdate: true }), { isPushed: true, isUpdated: true });
  });
  await check('result.checkResultEncryptionKeyExists, result.pushResultEncryptionKey: replaced only when asked', async () => {
    const { result } = iexec;
    const pem = () => generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey.export({ type: 'spki', format: 'pem' });
    assert.equal(await result.checkResultEncryptionKeyExists(alice.address), false);
    assert.deepEqual(await result.pushResultEncryptionKey(pem()), { isPushed: true, isUpdated: false });
    assert.equal(await reader().result.checkResultEncryptionKeyExists(alice.address), true);
    await refuses(result.pushResultEncryptionKey(pem()), 'Error', /already exists/);
    assert.deepEqual(await result.pushResultEncryptionKey(pem(), { forceUpdate: true }), { isPushed: true, isUpdated: true });
  });
  await check('secrets.checkRequesterSecretExists: a dead SMS is named', () =>
    refuses(as(alice, { smsURL: deadUrl }).secrets.checkRequesterSecretExists(alice.address, 'x'), 'SmsCallError', `SMS error: Connection to ${deadUrl} failed with a network error`));
});
