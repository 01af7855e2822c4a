// Reading protected data inside an iApp in JavaScript: what each client packs, every type, every mode.
import { IExecDataProtectorDeserializer } from '@iexec/dataprotector-deserializer';
import { IExecDataProtector } from 'dataprotector0';
import { utils } from 'iexec8';
import { assert, check, configuration, flow, refuses, until } from '../../harness.mjs';
import { deployApp, json, offerApp, people, workerpool } from '../dataprotector2/_people.mjs';

const POOL_PRICE = 20_000_000; // what the pool of a local network asks, nRLC
const PNG = new Uint8Array([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 1, 2]);
const hex = (bytes) => Buffer.from(bytes).toString('hex');
const DATA = { yes: true, no: false, num: -1.5, big: -(2n ** 100n), text: 'héllo', empty: '', in: { deep: { photo: PNG, text: 'x' } } };
const DATA0 = { yes: true, no: false, num: -42, text: 'héllo', in: { deep: { photo: PNG } } };

await flow(async ({ context }) => {
  const { owner, user, developer } = await people({ owner: {}, user: { stake: '1' }, developer: {} });
  const app = await deployApp(developer, context.apps.deserializer, 'deserializer');
  await offerApp(developer, app);
  const older = new IExecDataProtector(utils.getSignerFromPrivateKey(configuration.ethProvider, owner.key), configuration.dataProtector0Options);
  const made = [await owner.core.protectData({ name: 'new', data: DATA }), await older.protectData({ name: 'old', data: DATA0 })];
  const [data, data0] = made.map(({ address }) => address.toLowerCase());
  for (const protectedData of [data, data0]) {
    await owner.core.grantAccess({ protectedData, authorizedApp: app, authorizedUser: user.address, numberOfAccess: 10 });
  }
  const read = async (protectedData, ...wanted) => {
    const { result } = await user.core.processProtectedData({
      protectedData, app, workerpool, workerpoolMaxPrice: POOL_PRICE, args: wanted.join(' '), path: 'result.json',
    });
    return json(result);
  };
  const TYPES = ['yes:bool', 'no:bool', 'num:f64', 'big:i128', 'text:string', 'empty:string', 'in.deep.photo:image/png', 'in.deep.text:string'];
  const TYPES0 = ['yes:boolean', 'no:boolean', 'num:number', 'text:string', 'in.deep.photo:image/png'];
  const under = (mode, types) => types.map((type) => `${mode}/${type}`);
  const WRONG = ['borsh/absent:string', 'borsh/in.deep:string', 'borsh/num:i128', 'borsh/yes:f64', `default@absent/text:string`];
  // The tasks run side by side; one wallet makes one deal at a time.
  const first = read(data, ...under('default', TYPES), ...under('borsh', TYPES), ...WRONG, `borsh@${data}/text:string`);
  await Promise.race([first, until('the first deal', async () => (await user.iexec.account.checkBalance(user.address)).locked > 0)]);
  const second = read(data0, ...under('default', TYPES0), ...under('legacy', TYPES0), 'borsh/text:string');
  for (const one of [first, second]) one.catch(() => {});

  const seen = await check('getValue: every type of what @iexec/dataprotector 2 packs, as a mode says and by default', async () => {
    const seen = await first;
    for (const mode of ['default', 'borsh']) {
      assert.deepEqual(TYPES.map((type) => seen[`${mode}/${type}`]), [
        { type: 'boolean', value: true }, { type: 'boolean', value: false }, { type: 'number', value: -1.5 },
        { type: 'bigint', value: String(-(2n ** 100n)) }, { type: 'string', value: 'héllo' }, { type: 'string', value: '' },
        { type: 'bytes', value: hex(PNG) }, { type: 'string', value: 'x' },
      ], mode);
    }
    assert.deepEqual(seen[`borsh@${data}/text:string`], { type: 'string', value: 'héllo' });
    return seen;
  });
  await check('getValue: what is not there, another type, another file', () => {
    assert.deepEqual(WRONG.map((wanted) => seen[wanted].error), [
      'Failed to load path absent',
      'Failed to load path in.deep',
      'Failed to deserialize "num" as "i128" in "borsh" mode',
      'Failed to deserialize "yes" as "f64" in "borsh" mode',
      'Failed to load protected data',
    ]);
  });
  await check('getValue: every type of what @iexec/dataprotector 0.5 packs', async () => {
    const seen = await second;
    for (const mode of ['default', 'legacy']) {
      assert.deepEqual(TYPES0.map((type) => seen[`${mode}/${type}`]), [
        { type: 'boolean', value: true }, { type: 'boolean', value: false }, { type: 'number', value: -42 },
        { type: 'string', value: 'héllo' }, { type: 'bytes', value: hex(PNG) },
      ], mode);
    }
    assert.deepEqual(seen['borsh/text:string'], { error: 'Failed to deserialize "text" as "string" in "borsh" mode' });
  });
  await check('getValue: without data it says so', async () => {
    await refuses(() => new IExecDataProtectorDeserializer().getValue('a', 'string'), 'Error', 'Missing protected data');
    await refuses(() => new IExecDataProtectorDeserializer({ protectedDataPath: '/nowhere' }).getValue('a', 'string'), 'Error', 'Failed to load protected data');
  });
});
