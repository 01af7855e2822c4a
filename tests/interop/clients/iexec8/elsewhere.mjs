// What this package can do on other chains of iExec's and not here: ENS, vouchers, the bridge, RLC as the chain's own coin.
// Each says so by its own error, before any money or order moves.
import { assert, configuration, flow, network, refuses } from '../../harness.mjs';
import { IExecConfig } from 'iexec8';
import { as, text } from './_people.mjs';

const NETWORK = 'arbitrum-sepolia-testnet';
/** What an observable ends with. */
const ended = async (observable) => {
  const source = await observable;
  return new Promise((complete, error) => source.subscribe({ error, complete }));
};

await flow(async ({ check, wallets }) => {
  const { alice, bob } = await wallets({ alice: { rlc: '1', stake: '1' }, bob: {} });
  const iexec = as(alice);
  const { ens, voucher, wallet, account } = iexec;
  const unset = (option) => `${option} option not set and no default value for your chain ${network.chain_id}`;

  const noNames = `ENS is not available on network ${NETWORK}`;
  for (const [name, call] of Object.entries({
    'ens.getOwner': () => ens.getOwner('alice.eth'),
    'ens.resolveName': () => ens.resolveName('alice.eth'),
    'ens.lookupAddress': () => ens.lookupAddress(alice.address),
    'ens.getDefaultDomain': () => ens.getDefaultDomain(alice.address),
    'ens.claimName': () => ens.claimName('alice', 'users.iexec.eth'),
    'ens.setTextRecord': () => ens.setTextRecord('alice.eth', 'key', 'value'),
    'ens.readTextRecord': () => ens.readTextRecord('alice.eth', 'key'),
  })) await check(`${name}: no ENS on this chain`, () => refuses(call, 'ConfigurationError', noNames));
  await check('ens.configureResolution: no resolver on this chain', () =>
    refuses(ens.configureResolution('alice.eth', alice.address), 'ConfigurationError', unset('ensPublicResolverAddress')));
  await check('ens.obsConfigureResolution: no resolver on this chain', () =>
    refuses(ended(ens.obsConfigureResolution('alice.eth', alice.address)), 'ConfigurationError', unset('ensPublicResolverAddress')));

  const noVouchers = `iExec Voucher is not available on network ${NETWORK}`;
  for (const [name, call] of Object.entries({
    'voucher.getVoucherAddress': () => voucher.getVoucherAddress(alice.address),
    'voucher.showUserVoucher': () => voucher.showUserVoucher(alice.address),
    'voucher.authorizeRequester': () => voucher.authorizeRequester(bob.address),
    'voucher.revokeRequesterAuthorization': () => voucher.revokeRequesterAuthorization(bob.address),
  })) await check(`${name}: no vouchers on this chain`, () => refuses(call, 'ConfigurationError', noVouchers));

  const noOtherChain = `Missing chainId in bridgedNetworkConf and no default value for your chain ${network.chain_id}`;
  await check('account.checkBridgedBalance: there is no second chain', () =>
    refuses(account.checkBridgedBalance(alice.address), 'ConfigurationError', noOtherChain));
  await check('wallet.checkBridgedBalances: there is no second chain', () =>
    refuses(wallet.checkBridgedBalances(alice.address), 'ConfigurationError', noOtherChain));
  for (const [name, call] of Object.entries({
    'wallet.bridgeToSidechain': () => wallet.bridgeToSidechain('0.1 RLC'),
    'wallet.bridgeToMainchain': () => wallet.bridgeToMainchain('0.1 RLC'),
    'wallet.obsBridgeToSidechain': () => ended(wallet.obsBridgeToSidechain('0.1 RLC')),
    'wallet.obsBridgeToMainchain': () => ended(wallet.obsBridgeToMainchain('0.1 RLC')),
  })) await check(`${name}: there is no bridge`, () => refuses(call, 'ConfigurationError', unset('bridgeAddress')));

  await check('workerpool.setWorkerpoolApiUrl: Compass holds that address here, no ENS record', () =>
    refuses(iexec.workerpool.setWorkerpoolApiUrl(configuration.workerpool, network.origin), 'ConfigurationError',
      `Workerpool API Registration is not available on network ${NETWORK}`));
  await check('account.deposit: native mode is refused by a hub whose RLC is a token', () =>
    refuses(as(alice, { isNative: true }).account.deposit(5), 'Web3ProviderSendError', 'execution reverted: fallback-disabled'));
  await check('wallet.sendRLC: a gas price of nothing is refused by the chain', () =>
    refuses(as(alice, { useGas: false }).wallet.sendRLC(5, bob.address), 'Web3ProviderSendError', /max fee per gas less than block base fee/));
  await check('account.checkBalance: none of these attempts moved money', async () => {
    const { stake, locked } = await account.checkBalance(alice.address);
    const { nRLC } = await wallet.checkBalances(alice.address);
    assert.deepEqual([text(stake), text(locked), text(nRLC)], ['1000000000', '0', '1000000000']);
  });

  const config = (options = {}) =>
    new IExecConfig({ ethProvider: configuration.ethProvider }, { ...configuration.iexec8Options, ...options });
  for (const [name, option] of Object.entries({
    resolveResultProxyURL: 'resultProxyURL', resolveIexecGatewayURL: 'iexecGatewayURL', resolveCompassURL: 'compassURL',
    resolveIpfsGatewayURL: 'ipfsGatewayURL', resolveIpfsNodeURL: 'ipfsNodeURL',
  })) await check(`IExecConfig.${name}: the option of the description`, async () => {
    assert.equal(await config()[name](), configuration.iexec8Options[option]);
    assert.equal(await config({ [option]: 'https://other.example' })[name](), 'https://other.example');
  });
  await check('IExecConfig.resolveSmsURL: one for all frameworks, or one for each', async () => {
    const { smsURL } = configuration.iexec8Options;
    for (const teeFramework of [undefined, 'scone', 'gramine', 'tdx']) assert.equal(await config().resolveSmsURL({ teeFramework }), smsURL);
    const each = config({ smsURL: { scone: 'http://scone.local', tdx: smsURL } });
    assert.equal(await each.resolveSmsURL({ teeFramework: 'tdx' }), smsURL);
    assert.equal(await each.resolveSmsURL({ teeFramework: 'scone' }), 'http://scone.local');
  });
  await check('IExecConfig.resolveChainId: the chain’s own', async () => {
    assert.equal(String(await config().resolveChainId()), String(network.chain_id));
  });
  await check('IExecConfig.resolveContractsClient: everything is found from the hub', async () => {
    const client = await config().resolveContractsClient();
    assert.equal(client.hubAddress.toLowerCase(), network.contracts.hub.toLowerCase());
    assert.equal((await client.fetchTokenAddress()).toLowerCase(), network.contracts.rlc.toLowerCase());
    const registry = async (name) => (await client.fetchRegistryAddress(name)).toLowerCase();
    assert.equal(await registry('app'), network.contracts.app_registry.toLowerCase());
    assert.equal(await registry('dataset'), network.contracts.dataset_registry.toLowerCase());
    assert.equal(await registry('workerpool'), network.contracts.workerpool_registry.toLowerCase());
  });
  await check('IExecConfig.resolvePocoSubgraphURL: the option when it is given; the package’s own default names iExec’s', async () => {
    const { pocoSubgraphURL } = configuration.iexecOptions;
    assert.equal(await config({ pocoSubgraphURL }).resolvePocoSubgraphURL(), pocoSubgraphURL);
  });
  await check('IExecConfig.resolveBridgedContractsClient: there is no second chain', () =>
    refuses(config().resolveBridgedContractsClient(), 'ConfigurationError', noOtherChain));
  await check('IExecConfig.resolveBridgeBackAddress: there is no second chain', () =>
    refuses(config().resolveBridgeBackAddress(), 'ConfigurationError', noOtherChain));
  await check('IExecConfig.resolveBridgeAddress: there is no bridge', () =>
    refuses(config().resolveBridgeAddress(), 'ConfigurationError', unset('bridgeAddress')));
  await check('IExecConfig.resolveEnsPublicResolverAddress: no ENS on this chain', () =>
    refuses(config().resolveEnsPublicResolverAddress(), 'ConfigurationError', unset('ensPublicResolverAddress')));
  await check('IExecConfig.resolveVoucherHubAddress, IExecConfig.resolveVoucherSubgraphURL: none on this chain', async () => {
    assert.equal(await config().resolveVoucherHubAddress({}), null);
    assert.equal(await config().resolveVoucherSubgraphURL({}), null);
  });
});
