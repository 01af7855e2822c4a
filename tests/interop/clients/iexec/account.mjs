// Accounts in the hub, categories, the client's configuration, and functions that need no network.
import { constants, createCipheriv, createHash, generateKeyPairSync, publicEncrypt, randomBytes } from 'node:crypto';
import { IExec, IExecConfig, utils } from 'iexec';
import JSZip from 'jszip';
import { assert, configuration, context, flow, mined, network, operator, refuses } from '../../harness.mjs';
import { as, reader, text } from './_people.mjs';

const HASH = /^0x[0-9a-f]{64}$/;

await flow(async ({ check, wallets }) => {
  const { alice, bob } = await wallets({ alice: { rlc: '3', stake: '1' }, bob: {} });
  const iexec = as(alice);
  const account = async (who) => {
    const { stake, locked } = await reader().account.checkBalance(who.address);
    return [text(stake), text(locked)];
  };

  await check('account.checkBalance: stake and locked, of anybody and without a wallet', async () => {
    assert.deepEqual(await account(alice), ['1000000000', '0']);
    assert.deepEqual(await account(bob), ['0', '0']);
  });
  await check('account.deposit: from the wallet into the hub', async () => {
    const { amount, txHash } = await iexec.account.deposit('0.5 RLC');
    assert.equal(text(amount), '500000000');
    assert.match(txHash, HASH);
    assert.deepEqual(await account(alice), ['1500000000', '0']);
    assert.equal(text((await iexec.wallet.checkBalances(alice.address)).nRLC), '2500000000');
  });
  await check('account.deposit: more than the wallet has is refused before a transaction', () =>
    refuses(iexec.account.deposit('100 RLC'), 'Error', 'Deposit amount exceed wallet balance'));
  await check('account.withdraw: from the hub into the wallet', async () => {
    const { amount, txHash } = await iexec.account.withdraw(7);
    assert.equal(text(amount), '7');
    assert.match(txHash, HASH);
    assert.deepEqual(await account(alice), ['1499999993', '0']);
    assert.equal(text((await iexec.wallet.checkBalances(alice.address)).nRLC), '2500000007');
  });
  await check('account.withdraw: more than the stake is refused before a transaction', () =>
    refuses(iexec.account.withdraw('2 RLC'), 'Error', 'Withdraw amount exceed account balance'));
  await check('account.approve, account.checkAllowance: an allowance in the hub', async () => {
    await mined(await iexec.account.approve(12, bob.address));
    assert.equal(text(await reader().account.checkAllowance(alice.address, bob.address)), '12');
  });
  await check('account.revokeApproval: takes it back, once', async () => {
    await mined(await iexec.account.revokeApproval(bob.address));
    assert.equal(text(await iexec.account.checkAllowance(alice.address, bob.address)), '0');
  });

  await check('hub.countCategory, hub.showCategory: the five of iExec and those made since', async () => {
    assert.ok((await iexec.hub.countCategory()).gten(5));
    const shown = [];
    for (const index of [0, 1, 2, 3, 4]) shown.push(await iexec.hub.showCategory(index));
    assert.deepEqual(shown.map(({ name, workClockTimeRef }) => [name, text(workClockTimeRef)]),
      [['XS', '300'], ['S', '1200'], ['M', '3600'], ['L', '10800'], ['XL', '36000']]);
    assert.equal(text((await iexec.hub.showCategory(context.categories.short)).workClockTimeRef), '2');
  });
  await check('hub.showCategory: an unknown one is the hub’s refusal, as on iExec’s', async () => {
    const count = text(await iexec.hub.countCategory());
    const unknown = String(Number(count) + 1000);
    await refuses(iexec.hub.showCategory(unknown), 'Web3ProviderCallError', /^execution reverted/);
  });
  await check('hub.createCategory: only by the hub’s owner, who is named', async () => {
    const category = { name: 'XXS', description: 'none', workClockTimeRef: 0 };
    await operator('deployer', async (key) => {
      const owner = as({ key });
      const address = await owner.wallet.getAddress();
      await refuses(iexec.hub.createCategory(category), 'Error', `only category owner ${address} can create new categories`);
      const { catid, txHash } = await owner.hub.createCategory(category);
      assert.match(txHash, HASH);
      const shown = await iexec.hub.showCategory(catid);
      assert.deepEqual([shown.name, shown.description, text(shown.workClockTimeRef)], ['XXS', 'none', '0']);
    });
  });
  await check('hub.getTimeoutRatio: ten category times', async () => {
    assert.equal(text(await iexec.hub.getTimeoutRatio()), '10');
  });
  await check('network.getNetwork: the chain and whether it is native', async () => {
    const found = await iexec.network.getNetwork();
    assert.equal(String(found.chainId), String(network.chain_id));
  });

  const config = new IExecConfig({ ethProvider: configuration.ethProvider }, configuration.iexecOptions);
  for (const [method, option] of [
    ['resolveSmsURL', 'smsURL'], ['resolveIexecGatewayURL', 'iexecGatewayURL'], ['resolveIpfsGatewayURL', 'ipfsGatewayURL'],
    ['resolveIpfsNodeURL', 'ipfsNodeURL'], ['resolveCompassURL', 'compassURL'], ['resolvePocoSubgraphURL', 'pocoSubgraphURL'],
  ]) {
    await check(`IExecConfig.${method}: what the network describes`, async () => {
      assert.equal(await config[method](), configuration.iexecOptions[option]);
    });
  }
  await check('IExecConfig.resolveChainId: asked of the chain', async () => assert.equal(String(await config.resolveChainId()), '421614'));
  await check('IExecConfig.resolveContractsClient: knows the hub', async () => {
    const client = await config.resolveContractsClient();
    assert.equal(client.hubAddress, network.contracts.hub);
  });
  await check('IExecConfig.resolveSmsURL: a malformed URL and a missing provider are refused', async () => {
    await refuses(() => new IExec({}, {}), 'ConfigurationError', 'Missing ethProvider');
    await refuses(() => reader({ smsURL: 'nonsense' }), 'ConfigurationError', /Invalid smsURL: /);
  });

  await check('utils.parseEth, utils.formatEth, utils.parseRLC, utils.formatRLC, utils.BN: amounts', () => {
    assert.equal(text(utils.parseEth('0.1 ether')), '100000000000000000');
    assert.equal(text(utils.parseEth(5, 'gwei')), '5000000000');
    assert.equal(utils.formatEth(new utils.BN('1500000000000000000')), '1.5');
    assert.equal(text(utils.parseRLC('1.5 RLC')), '1500000000');
    assert.equal(utils.formatRLC(1), '0.000000001');
  });
  await check('utils.encodeTag, utils.decodeTag, utils.sumTags: bits of tags', () => {
    const tag = utils.encodeTag(['tee', 'tdx']);
    assert.equal(tag, '0x' + '9'.padStart(64, '0'));
    assert.deepEqual(utils.decodeTag(tag), ['tee', 'tdx']);
    assert.equal(utils.sumTags([tag, utils.encodeTag(['gpu'])]), '0x' + '109'.padStart(64, '0'));
    assert.throws(() => utils.decodeTag('0x' + '80'.padStart(64, '0')), /Unknown bit 7 in tag/);
  });
  await check('utils.NULL_ADDRESS, utils.NULL_BYTES32, utils.DATASET_INFINITE_VOLUME: constants', () => {
    assert.equal(utils.NULL_ADDRESS, '0x' + '0'.repeat(40));
    assert.equal(utils.NULL_BYTES32, '0x' + '0'.repeat(64));
    assert.equal(utils.DATASET_INFINITE_VOLUME, 2 ** 53 - 1);
  });
  await check('utils.getSignerFromPrivateKey: a signer on this chain', async () => {
    const signer = utils.getSignerFromPrivateKey(configuration.ethProvider, alice.key);
    assert.equal(await signer.getAddress(), alice.address);
    assert.equal((await signer.provider.getNetwork()).chainId, 421614n);
  });
  await check('utils.decryptResult: opens an archive sealed with RSA and AES-256-CBC', async () => {
    const keys = generateKeyPairSync('rsa', { modulusLength: 2048 });
    const [key, iv, content] = [randomBytes(32), randomBytes(16), randomBytes(1000)];
    const cipher = createCipheriv('aes-256-cbc', key, iv);
    const archive = new JSZip();
    archive.file('aes-key.rsa', publicEncrypt({ key: keys.publicKey, padding: constants.RSA_PKCS1_PADDING }, key));
    archive.file('iexec_out.zip.aes', Buffer.concat([iv, cipher.update(content), cipher.final()]));
    const pem = keys.privateKey.export({ type: 'pkcs8', format: 'pem' });
    const opened = await utils.decryptResult(await archive.generateAsync({ type: 'nodebuffer' }), pem);
    const sha256 = (bytes) => createHash('sha256').update(Buffer.from(bytes)).digest('hex');
    assert.equal(sha256(opened), sha256(content));
  });
});
