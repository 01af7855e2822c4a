// Money: wallets, the hub's accounts, categories; amounts with units, tags and the other small functions of utils.
import { randomBytes } from 'node:crypto';
import { assert, configuration, flow, keepSecret, network, operator, refuses } from '../../harness.mjs';
import { utils } from 'iexec8';
import { as, reader, text } from './_people.mjs';

await flow(async ({ check, wallets }) => {
  const { alice, bob, carol } = await wallets({ alice: { rlc: '3', ether: '2' }, bob: { ether: '0' }, carol: { rlc: '1', stake: '0.25' } });
  const iexec = as(alice);
  const inWallet = async (who) => text((await iexec.wallet.checkBalances(who.address)).nRLC);
  const inHub = async (who) => {
    const { stake, locked } = await iexec.account.checkBalance(who.address);
    return [text(stake), text(locked)];
  };

  await Promise.all([
    check('wallet.getAddress: the signer’s address, checksummed', async () => {
      assert.equal(await iexec.wallet.getAddress(), alice.address);
    }),
    check('wallet.checkBalances: wei and nRLC of anybody, also without a wallet', async () => {
      const { wei, nRLC } = await reader().wallet.checkBalances(alice.address);
      assert.deepEqual([text(wei), text(nRLC)], ['2000000000000000000', '3000000000']);
    }),
    check('network.getNetwork: chain id, and RLC is a token', async () => {
      assert.deepEqual(await iexec.network.getNetwork(), { chainId: String(network.chain_id), isNative: false });
    }),
    check('hub.countCategory: five at least', async () => {
      assert.ok((await reader().hub.countCategory()).gten(5));
    }),
    check('hub.showCategory: name, description and clock of the first; beyond the last there is none', async () => {
      const { name, description, workClockTimeRef } = await reader().hub.showCategory(0);
      assert.equal(name, 'XS');
      assert.equal(typeof description, 'string');
      assert.equal(text(workClockTimeRef), '300');
      await refuses(reader().hub.showCategory(10_000), 'Web3ProviderCallError', /^execution reverted/);
    }),
    check('hub.getTimeoutRatio: the final deadline is ten clocks away', async () => {
      assert.equal(text(await reader().hub.getTimeoutRatio()), '10');
    }),
  ]);
  await check('hub.createCategory: by the hub’s owner alone', async () => {
    const category = { name: 'eight', description: 'made by iexec 8', workClockTimeRef: '77' };
    await refuses(iexec.hub.createCategory(category), 'Error', /^only category owner 0x[0-9a-fA-F]{40} can create new categories$/);
    const { catid, txHash } = await operator('deployer', (key) => as({ key }).hub.createCategory(category));
    assert.match(txHash, /^0x[0-9a-f]{64}$/);
    const shown = await iexec.hub.showCategory(catid);
    assert.deepEqual([shown.name, shown.description, text(shown.workClockTimeRef)], ['eight', 'made by iexec 8', '77']);
  });

  await check('wallet.sendRLC: moves nRLC and amounts with units; not more than there is', async () => {
    assert.match(await iexec.wallet.sendRLC(7, bob.address), /^0x[0-9a-f]{64}$/);
    await iexec.wallet.sendRLC('0.5 RLC', bob.address);
    assert.deepEqual([await inWallet(bob), await inWallet(alice)], ['500000007', '2499999993']);
    await refuses(iexec.wallet.sendRLC('3 RLC', bob.address), 'Error', 'Amount to send exceed wallet balance');
  });
  await check('wallet.sendETH: moves wei and amounts with units', async () => {
    assert.match(await iexec.wallet.sendETH('0.25 ether', bob.address), /^0x[0-9a-f]{64}$/);
    assert.equal(text((await iexec.wallet.checkBalances(bob.address)).wei), '250000000000000000');
    await refuses(iexec.wallet.sendETH('5 ether', bob.address), 'Error', 'Amount to send exceed wallet balance');
  });
  await check('account.deposit: from the wallet into the hub', async () => {
    const { amount, txHash } = await iexec.account.deposit('1 RLC');
    assert.equal(text(amount), '1000000000');
    assert.match(txHash, /^0x[0-9a-f]{64}$/);
    assert.equal(await inWallet(alice), '1499999993');
    await refuses(iexec.account.deposit('5 RLC'), 'Error', 'Deposit amount exceed wallet balance');
  });
  await check('account.checkBalance: stake and what deals have locked', async () => {
    assert.deepEqual(await inHub(alice), ['1000000000', '0']);
    assert.deepEqual(await inHub(bob), ['0', '0']);
    assert.deepEqual(await inHub(carol), ['250000000', '0']);
  });
  await check('account.withdraw: back into the wallet, not more than is staked', async () => {
    const { amount, txHash } = await iexec.account.withdraw(400_000_000);
    assert.equal(text(amount), '400000000');
    assert.match(txHash, /^0x[0-9a-f]{64}$/);
    assert.deepEqual([await inHub(alice), await inWallet(alice)], [['600000000', '0'], '1899999993']);
    await refuses(iexec.account.withdraw('1 RLC'), 'Error', 'Withdraw amount exceed account balance');
  });
  await check('account.approve, account.checkAllowance, account.revokeApproval: what another may spend of the stake', async () => {
    const allowed = async () => text(await iexec.account.checkAllowance(alice.address, bob.address));
    assert.equal(await allowed(), '0');
    assert.match(await iexec.account.approve('0.1 RLC', bob.address), /^0x[0-9a-f]{64}$/);
    assert.equal(await allowed(), '100000000');
    assert.match(await iexec.account.revokeApproval(bob.address), /^0x[0-9a-f]{64}$/);
    assert.equal(await allowed(), '0');
  });
  await check('wallet.sweep: all RLC, then all ether less gas', async () => {
    const { sendERC20TxHash, sendNativeTxHash, errors } = await as(carol).wallet.sweep(bob.address);
    assert.match(sendERC20TxHash, /^0x[0-9a-f]{64}$/);
    assert.match(sendNativeTxHash, /^0x[0-9a-f]{64}$/);
    assert.equal(errors, undefined);
    assert.deepEqual([await inWallet(carol), await inWallet(bob)], ['0', '1500000007']);
  });

  await check('utils.getSignerFromPrivateKey: an ethers signer on the chain of this URL', async () => {
    const signer = utils.getSignerFromPrivateKey(configuration.ethProvider, alice.key);
    assert.equal(await signer.getAddress(), alice.address);
    assert.equal((await signer.provider.getNetwork()).chainId, BigInt(network.chain_id));
  });
  await check('utils.BN: the numbers that answers are made of', async () => {
    const { stake } = await iexec.account.checkBalance(alice.address);
    assert.ok(stake.add(new utils.BN(1)).eq(new utils.BN('600000001')));
  });
  await check('utils.parseRLC, utils.formatRLC, utils.parseEth, utils.formatEth: units there and back', async () => {
    assert.equal(text(utils.parseRLC('1.5 RLC')), '1500000000');
    assert.equal(text(utils.parseRLC('5 nRLC')), '5');
    assert.equal(utils.formatRLC('1500000000'), '1.5');
    assert.equal(text(utils.parseEth('2 gwei')), '2000000000');
    assert.equal(utils.formatEth('2000000000'), '0.000000002');
  });
  await check('utils.encodeTag, utils.decodeTag, utils.sumTags: all three frameworks', async () => {
    const tag = (last) => `0x${last.padStart(64, '0')}`;
    assert.equal(utils.encodeTag(['tee', 'scone']), tag('3'));
    assert.equal(utils.encodeTag(['tee', 'gramine']), tag('5'));
    assert.equal(utils.encodeTag(['tee', 'tdx']), tag('9'));
    assert.deepEqual(utils.decodeTag(tag('103')), ['tee', 'scone', 'gpu']);
    assert.equal(utils.sumTags([tag('1'), tag('100'), tag('2')]), tag('103'));
  });
  await check('utils.NULL_ADDRESS, utils.NULL_BYTES32, utils.DATASET_INFINITE_VOLUME: constants', async () => {
    assert.equal(utils.NULL_ADDRESS, `0x${'0'.repeat(40)}`);
    assert.equal(utils.NULL_BYTES32, `0x${'0'.repeat(64)}`);
    assert.equal(utils.DATASET_INFINITE_VOLUME, Number.MAX_SAFE_INTEGER);
  });
  await check('wallet.checkBalances: of a key that nobody has used is nothing', async () => {
    const stranger = utils.getSignerFromPrivateKey(configuration.ethProvider, keepSecret(`0x${randomBytes(32).toString('hex')}`));
    const { wei, nRLC } = await iexec.wallet.checkBalances(await stranger.getAddress());
    assert.deepEqual([text(wei), text(nRLC)], ['0', '0']);
  });
});
