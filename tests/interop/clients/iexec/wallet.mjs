// Wallets: ether, RLC, and everything moved away.
import { assert, flow, refuses } from '../../harness.mjs';
import { as } from './_people.mjs';

await flow(async ({ check, wallets }) => {
  const { alice, bob, carol } = await wallets({ alice: { rlc: '2', ether: '3' }, bob: { ether: '0' }, carol: { rlc: '1' } });
  const iexec = as(alice);
  const nRLC = async (who) => (await iexec.wallet.checkBalances(who.address)).nRLC.toString();

  await check('wallet.getAddress: the signer’s address, checksummed', async () => {
    assert.equal(await iexec.wallet.getAddress(), alice.address);
  });
  await check('wallet.checkBalances: wei and nRLC of anybody', async () => {
    const { wei, nRLC: rlc } = await iexec.wallet.checkBalances(alice.address);
    assert.equal(wei.toString(), '3000000000000000000');
    assert.equal(rlc.toString(), '2000000000');
    assert.equal(await nRLC(bob), '0');
  });
  await check('wallet.sendRLC: moves nRLC and amounts with units', async () => {
    assert.match(await iexec.wallet.sendRLC(5, bob.address), /^0x[0-9a-f]{64}$/);
    await iexec.wallet.sendRLC('0.5 RLC', bob.address);
    assert.equal(await nRLC(bob), '500000005');
    assert.equal(await nRLC(alice), '1499999995');
    await refuses(iexec.wallet.sendRLC('3 RLC', bob.address), 'Error', 'Amount to send exceed wallet balance');
  });
  await check('wallet.sendETH: moves wei', async () => {
    await iexec.wallet.sendETH('0.25 ether', bob.address);
    assert.equal((await iexec.wallet.checkBalances(bob.address)).wei.toString(), '250000000000000000');
    await refuses(iexec.wallet.sendETH('5 ether', bob.address), 'Error', 'Amount to send exceed wallet balance');
  });
  await check('wallet.sweep: sends all RLC, then all ether less gas', async () => {
    const swept = await as(carol).wallet.sweep(bob.address);
    assert.match(swept.sendERC20TxHash, /^0x/);
    assert.match(swept.sendNativeTxHash, /^0x/);
    assert.equal(await nRLC(carol), '0');
    assert.equal(await nRLC(bob), '1500000005');
  });
});
