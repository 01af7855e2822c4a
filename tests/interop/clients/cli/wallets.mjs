// One person's wallet, account, secrets and keys, and what needs no wallet: projects, categories, the network.
import { existsSync, readdirSync, statSync } from 'node:fs';
import { assert, flow, keepSecret, mined, network, operator } from '../../harness.mjs';
import { Project } from './_command.mjs';

const ADDRESS = /^0x[0-9a-fA-F]{40}$/;
const HASH = /^0x[0-9a-f]{64}$/;

await flow(async ({ check, wallets }) => {
  const { alice, bob, carol } = await wallets({ alice: { rlc: '3', stake: '1', ether: '3' }, bob: { ether: '0' }, carol: { rlc: '1' } });

  const money = async () => {
    const project = new Project('alice');
    await check('wallet import: a private key, in the clear', async () => {
      const said = await project.run('wallet import', alice.key, '--unencrypted');
      assert.deepEqual([said.address, said.fileName], [alice.address, 'wallet.json']);
      assert.equal(project.read('wallet.json').address, alice.address);
    });
    await check('wallet show: address and balances', async () => {
      const { wallet, balance } = await project.run('wallet show');
      assert.equal(wallet.address, alice.address);
      assert.deepEqual([balance.nRLC, balance.wei], ['3000000000', '3000000000000000000']);
    });
    await check('wallet send-RLC: to somebody', async () => {
      const said = await project.run('wallet send-RLC', '0.5', 'RLC', '--to', bob.address, '--force');
      assert.equal(said.to, bob.address);
      await mined(said.txHash);
    });
    await check('wallet send-ether: to somebody; more than there is is refused', async () => {
      await mined((await project.run('wallet send-ether', '0.25', 'ether', '--to', bob.address, '--force')).txHash);
      const { balance } = await project.run('wallet show', bob.address);
      assert.deepEqual([balance.nRLC, balance.wei], ['500000000', '250000000000000000']);
      const { error } = await project.fails('wallet send-ether', '9', 'ether', '--to', bob.address, '--force');
      assert.equal(error.message, 'Amount to send exceed wallet balance');
    });
    await check('account deposit: from the wallet', async () => {
      const said = await project.run('account deposit', '1', 'RLC');
      assert.match(said.txHash, HASH);
    });
    await check('account withdraw: into the wallet', async () => {
      assert.match((await project.run('account withdraw', '7')).txHash, HASH);
    });
    await check('account show: stake and locked', async () => {
      const { balance } = await project.run('account show');
      assert.deepEqual([balance.stake, balance.locked], ['1999999993', '0']);
    });
    await check('account approve, account allowance, account revoke: an allowance, taken back', async () => {
      await mined((await project.run('account approve', '12', bob.address)).txHash);
      assert.equal((await project.run('account allowance', bob.address)).amount, '0c'); // hexadecimal
      await mined((await project.run('account revoke', bob.address)).txHash);
      assert.equal(Number((await project.run('account allowance', bob.address)).amount), 0);
    });
    const last = new Project('carol');
    last.write('wallet.json', { privateKey: carol.key, address: carol.address });
    await check('wallet sweep: all RLC, then all ether less gas', async () => {
      const said = await last.run('wallet sweep', '--to', bob.address, '--force');
      assert.equal(said.errors, undefined);
      await Promise.all([mined(said.sendERC20TxHash), mined(said.sendNativeTxHash)]);
      assert.equal((await last.run('wallet show')).balance.nRLC, '0');
    });
  };

  const rest = async () => {
    const fresh = new Project('fresh', { chain: false });
    await check('init: writes iexec.json, chain.json and a wallet', async () => {
      const said = await fresh.run('init', '--unencrypted');
      assert.match(said.walletAddress, ADDRESS);
      assert.equal(fresh.read('chain.json').default, 'arbitrum-sepolia-testnet');
      assert.equal(fresh.read('iexec.json').license, 'MIT');
    });
    await check('wallet create: a new one, encrypted', async () => {
      const said = await fresh.run('wallet create', '--password', keepSecret('correct horse battery'), '--keystoredir', 'local');
      assert.match(said.address, ADDRESS);
      assert.equal(fresh.read(said.fileName).address, said.address.slice(2).toLowerCase());
      assert.equal(existsSync(fresh.path(said.fileName)), true);
    });
    const project = new Project('secrets');
    project.write('wallet.json', { privateKey: alice.key, address: alice.address });
    await check('info: the contracts, as the hub names them', async () => {
      const ended = await project.whole('info', '--raw');
      const said = JSON.parse(ended.stdout);
      assert.deepEqual([said.hubAddress, said.rlcAddress], [network.contracts.hub, network.contracts.rlc]);
      for (const name of ['appRegistryAddress', 'datasetRegistryAddress', 'workerpoolRegistryAddress']) assert.match(said[name], ADDRESS);
    });
    await check('category init: a template in iexec.json', async () => {
      assert.deepEqual((await fresh.run('category init')).category, { name: 'XXL', description: 'new hub category', workClockTimeRef: '100' });
    });
    await check('category create, category count, category show: by the hub’s owner only', async () => {
      await operator('deployer', async (key) => {
        const owner = new Project('owner');
        owner.write('iexec.json', { category: { name: 'XXL', description: 'of the command line', workClockTimeRef: '100' } });
        owner.write('wallet.json', { privateKey: key });
        const { catid } = await owner.run('category create');
        const [{ count }, { category }] = await Promise.all([project.run('category count'), project.run('category show', catid)]);
        assert.ok(Number(count) > Number(catid));
        assert.deepEqual([category.name, category.description, category.workClockTimeRef], ['XXL', 'of the command line', '100']);
      });
      project.write('iexec.json', { category: { name: 'XXL', description: 'no', workClockTimeRef: '100' } });
      assert.match((await project.fails('category create')).error.message, /^only category owner 0x[0-9a-fA-F]{40} can create new categories$/);
    });
    await check('storage init, storage check: a token of dropbox is kept', async () => {
      assert.equal((await project.run('storage check', 'dropbox')).isInitialized, false);
      const said = await project.run('storage init', 'dropbox', '--token', keepSecret('sl.0123456789'));
      assert.deepEqual([said.isInitialized, said.isUpdated], [true, false]);
      assert.equal((await project.run('storage check', 'dropbox', '--user', alice.address)).isInitialized, true);
    });
    await check('requester push-secret, requester check-secret: by name, once', async () => {
      const said = await project.run('requester push-secret', 'first', '--secret-value', keepSecret('what the requester keeps'));
      assert.equal(said.name, 'first');
      assert.equal((await project.run('requester check-secret', 'first')).isSet, true);
      assert.equal((await project.fails('requester push-secret', 'first', '--secret-value', 'other')).error.message, `Secret "first" already exists for ${alice.address}`);
    });
    await check('result generate-encryption-keypair: RSA keys in .secrets/beneficiary', async () => {
      const said = await project.run('result generate-encryption-keypair', '--force');
      assert.deepEqual(readdirSync(said.secretPath).sort(), [said.privateKeyFile, said.publicKeyFile].sort());
      assert.ok(statSync(project.path(`.secrets/beneficiary/${said.privateKeyFile}`)).size > 3000);
    });
    await check('result push-encryption-key, result check-encryption-key: the public one is kept by the network', async () => {
      assert.equal((await project.run('result check-encryption-key')).isEncryptionKeySet, false);
      const said = await project.run('result push-encryption-key');
      assert.deepEqual([said.isPushed, said.isUpdated], [true, false]);
      assert.equal((await project.run('result check-encryption-key', alice.address)).isEncryptionKeySet, true);
    });
  };
  await Promise.all([money(), rest()]);
});
