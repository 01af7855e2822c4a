// A web site of another origin: `iexec` and `@iexec/dataprotector` bundled for browsers, a wallet injected into the page,
// headless Chromium. Everything that the page may read, it reads through CORS.
import { accessSync, constants } from 'node:fs';
import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { verifyMessage } from 'ethers';
import { chromium } from 'playwright-core';
import { assert, check, configuration, flow } from '../../harness.mjs';
import { deployApp, offerApp, people, workerpool } from '../dataprotector2/_people.mjs';

const HERE = dirname(fileURLToPath(import.meta.url));
const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];
const POOL_PRICE = 20_000_000; // what the pool of a local network asks, nRLC
const PHOTO = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 1, 2];
const NEGATIVE = String(-(2n ** 100n));
const DATA = { yes: true, num: 1.5, neg: { $bigint: NEGATIVE }, text: 'héllo', photo: { $file: PHOTO } };
const READ = 'yes:bool num:f64 neg:i128 text:string photo:image/png'.split(' ').map((one) => `--read ${one}`).join(' ');
const FOUND = {
  yes: true,
  num: 1.5,
  neg: { integer: NEGATIVE },
  text: 'héllo',
  photo: { size: PHOTO.length, sha256: createHash('sha256').update(Buffer.from(PHOTO)).digest('hex'), head: Buffer.from(PHOTO).toString('hex') },
};
const HTML = `<!doctype html><meta charset="utf-8"><title>protected data</title>
<style>body { font: 14px sans-serif; margin: 1em; overflow-wrap: anywhere } .call { font-weight: bold } .failed { color: #a00 } .result { color: #060 }</style>
<h1></h1><ol id="steps"></ol><script type="module" src="/page.js"></script>`;

/** Where Chromium is; undefined when it is not installed. */
function findChromium() {
  const places = ['/usr/bin', ...(process.env.PATH ?? '').split(delimiter)].map((folder) => join(folder, 'chromium'));
  return places.find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** The page's script as a web site's build makes it. `crypto` of Node is named behind a test for Web Crypto, never reached here. */
async function bundle() {
  const { outputFiles } = await build({
    entryPoints: [join(HERE, '_page.mjs')],
    bundle: true,
    platform: 'browser',
    format: 'esm',
    target: 'es2022',
    external: ['crypto'],
    legalComments: 'none',
    logLevel: 'error',
    write: false,
  });
  return outputFiles[0].text;
}

/** Serve these files on a port of their own; gives the origin. */
async function serve(files) {
  const server = createServer(({ url }, response) => {
    const [type, content] = files[url] ?? [];
    response.writeHead(content === undefined ? 404 : 200, { 'content-type': type ?? 'text/plain' }).end(content);
  });
  await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
  return `http://127.0.0.1:${server.address().port}`;
}

/** A person's page in a browser profile of its own. `preflights` gets each OPTIONS that the browser asked, with its answer. */
async function visit(browser, origin, person) {
  const page = await (await browser.newContext({ viewport: { width: 900, height: 1000 } })).newPage();
  const [preflights, errors] = [[], []];
  page.on('pageerror', (error) => errors.push(error.message));
  const session = await page.context().newCDPSession(page);
  session.on('Network.responseReceived', ({ type, response: { url, status } }) => {
    if (type === 'Preflight') preflights.push({ url, status });
  });
  await session.send('Network.enable');
  await page.goto(origin);
  await page.waitForFunction(() => window.page);
  const call = (name, ...params) => page.evaluate(([method, args]) => window.page[method](...args), [name, params]);
  const address = await call('open', { key: person.key, configuration });
  return { page, call, address, preflights, errors };
}

async function main({ context }, executablePath) {
  const parts = [
    bundle(),
    people({ owner: {}, reader: { stake: '1' }, developer: {} }),
    chromium.launch({ executablePath, headless: true, args: FLAGS }),
  ];
  const [script, { owner, reader, developer }, browser] = await Promise.all(parts);
  try {
    const [origin, elsewhere] = await Promise.all([
      serve({ '/': ['text/html', HTML], '/page.js': ['text/javascript', script] }),
      serve({ '/': ['text/plain', 'no page of another origin may read this'] }),
    ]);
    const offered = deployApp(developer, context.app).then(async (app) => {
      await offerApp(developer, app);
      return app;
    });
    const [hers, his] = [await visit(browser, origin, owner), await visit(browser, origin, reader)];

    await check('wallet: the injected wallet names the account, and signs for no other', async () => {
      assert.deepEqual([hers.address, his.address], [owner.address, reader.address]);
      assert.equal(verifyMessage('hello', await hers.call('personalSign', '0x' + Buffer.from('hello').toString('hex'))), owner.address);
      await assert.rejects(hers.page.evaluate((other) => window.ethereum.request({ method: 'personal_sign', params: ['0x00', other] }), reader.address), /not an account of this wallet/);
    });
    const made = await check('protectData, createArrayBufferFromFile: a chosen file and every type of value', async () => {
      const data = await hers.call('protectData', { data: DATA, name: 'from a page' });
      assert.deepEqual(data.schema, { yes: 'bool', num: 'f64', neg: 'i128', text: 'string', photo: 'image/png' });
      assert.deepEqual([data.name, data.owner], ['from a page', owner.address]);
      return data.address.toLowerCase();
    });
    const app = await offered;
    await check('grantAccess: signed in the page, listed for the reader', async () => {
      const granted = await hers.call('grantAccess', { protectedData: made, authorizedApp: app, authorizedUser: reader.address, numberOfAccess: 2 });
      assert.deepEqual([granted.dataset, granted.apprestrict, granted.requesterrestrict], [made, app, reader.lower]);
      assert.equal(await his.call('grants', made), 1);
      const { eth_signTypedData_v4: typed, eth_sendTransaction: sent } = await hers.call('asked');
      assert.ok(typed >= 1 && sent >= 1, `${typed} typed signatures, ${sent} transactions`);
    });
    const running = his.call('processProtectedData', {
      protectedData: made, app, workerpool, workerpoolMaxPrice: POOL_PRICE, encryptResult: true, path: 'result.json', args: READ,
    });
    running.catch(() => {});

    const { smsURL: sms, iexecGatewayURL: market, ipfsNodeURL: node, pocoSubgraphURL: subgraph } = configuration.iexecOptions;
    const core = configuration.iexecOptions.compassURL;
    const task = `0x${'12'.repeat(32)}`;
    const json = { Authorization: '0x12', 'Content-Type': 'application/json' };
    const REFUSED = {
      market: [{ url: `${market}/datasetorders`, method: 'POST', body: '{}' }, 400, 'chainId is a required field'],
      sms: [{ url: `${sms}/requesters/${reader.address}/secrets/1`, method: 'POST', body: '{}' }, 401, 'this account is not allowed to set the secret'],
      core: [{ url: `${core}/tasks/${task}/logs` }, 401, 'the login does not parse'],
      results: [{ url: `${core}/v1/results`, method: 'POST', body: '{}' }, 401, 'the token is not valid here'],
      gateway: [{ url: `${node}/api/v0/add`, method: 'POST', body: '{}' }, 400, 'expected a multipart/form-data body'],
      subgraph: [{ url: subgraph, method: 'POST', body: '{}' }, 400, 'query: expected a string'],
    };
    for (const [service, [request, status, text]] of Object.entries(REFUSED)) {
      await check(`preflight, errors: ${service}: Authorization and Content-Type may be sent, and the page reads why it is refused`, async () => {
        const before = hers.preflights.length;
        const answer = await hers.call('ask', { headers: json, ...request });
        assert.equal(answer.status, status, answer.text);
        assert.ok(answer.text.includes(text), answer.text);
        assert.match(answer.id, /^[0-9a-f]{16}$/);
        assert.deepEqual(hers.preflights.slice(before), [{ url: request.url, status: 200 }]);
      });
    }
    await check('errors: what is not there is said to the page too', async () => {
      for (const path of ['/nothing', `/tasks/${task}`, '/ipfs/x']) {
        const { status, text } = await hers.call('ask', { url: `${core}${path}` });
        assert.ok(status >= 400 && status < 500 && JSON.parse(text).error, `${path}: ${status} ${text}`);
      }
    });
    await check('preflight: a file with an Authorization is added, and read again', async () => {
      const added = await hers.call('ask', { url: `${node}/api/v0/add?cid-version=1`, method: 'POST', headers: { Authorization: 'Bearer x' }, form: { file: 'from a page' } });
      assert.equal(added.status, 200, added.text);
      assert.deepEqual(await hers.call('ask', { url: `${node}/ipfs/${JSON.parse(added.text).Hash}` }).then(({ status, text }) => [status, text]), [200, 'from a page']);
    });
    await check('preflight: without leave the browser hides the answer, so CORS is in force here', async () => {
      await assert.rejects(hers.call('ask', { url: elsewhere }), /Failed to fetch/);
    });

    let sealedTask;
    await check('processProtectedData: the result is sealed for the page, which opens it', async () => {
      const { content, sealed, taskId, titles } = await running;
      assert.deepEqual(content.data, FOUND);
      assert.deepEqual(content.args, READ.split(' '));
      assert.deepEqual([content.environment.IEXEC_TASK_ID, content.environment.IEXEC_DATASET_ADDRESS], [taskId, made]);
      assert.ok(sealed);
      assert.deepEqual(titles, [
        'FETCH_ORDERS', 'PUSH_REQUESTER_SECRET', 'GENERATE_ENCRYPTION_KEY', 'PUSH_ENCRYPTION_KEY', 'REQUEST_TO_PROCESS_PROTECTED_DATA', 'TASK_EXECUTION', 'TASK_RESULT_DOWNLOAD', 'TASK_RESULT_DECRYPT',
      ]);
      assert.deepEqual(await his.call('account', reader.address), [1e9 - POOL_PRICE, 0]);
      sealedTask = taskId;
    });
    await check('getResultFromCompletedTask: opened again with the key that the browser kept; another browser has none', async () => {
      const wanted = { taskId: sealedTask, path: 'result.json' };
      assert.ok((await his.call('getResult', wanted)) > 0);
      await assert.rejects(hers.call('getResult', wanted), /Failed to process task result/);
    });
    await check('wallet: nothing failed unseen in the pages, which show each step', async () => {
      assert.deepEqual([...hers.errors, ...his.errors], []);
      const rows = await his.page.locator('#steps li').allTextContents();
      assert.ok(rows.includes('✓ TASK_RESULT_DECRYPT') && rows.some((row) => row.startsWith('opened: ')), rows.join('\n'));
    });
    await Promise.all(Object.entries({ owner: hers, reader: his }).map(([name, { page }]) =>
      page.screenshot({ path: join(context.folder, `${name}.png`), fullPage: true })));
  } finally {
    await browser.close();
  }
}

const executablePath = findChromium();
if (executablePath) await flow((parts) => main(parts, executablePath));
else process.stdout.write(JSON.stringify({ skip: 'chromium is not installed' }) + '\n');
