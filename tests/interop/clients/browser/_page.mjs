// The script of the page: iExec's packages as a web site bundles them, and what the flow asks of them from outside.
// Everything that happens is shown as text, one row for each step.
import { createArrayBufferFromFile, IExecDataProtector } from '@iexec/dataprotector';
import { IExec } from 'iexec';
import { PageWallet } from './_wallet.mjs';

let core;
let iexec;

function show(text, kind = '') {
  const row = document.createElement('li');
  row.textContent = text;
  row.className = kind;
  document.querySelector('#steps').append(row);
}

const onStatusUpdate = ({ title, isDone }) => show(`${isDone ? '✓' : '…'} ${title}`);

/** What a call gives; what it throws is shown and goes on with its cause in the text. */
async function step(name, call) {
  show(name, 'call');
  try {
    return await call();
  } catch (error) {
    const said = [error, error.cause].filter(Boolean).map(({ constructor, message }) => `${constructor.name}: ${message}`).join(' <- ');
    show(`✗ ${said}`, 'failed');
    throw new Error(said);
  }
}

const unmade = ({ $bigint, $file } = {}) => ($bigint ? BigInt($bigint) : $file && createArrayBufferFromFile(new File([new Uint8Array($file)], 'photo.png')));

window.page = {
  /** Put the wallet into the page and connect both packages to it. */
  async open({ key, configuration }) {
    window.ethereum = new PageWallet(key, configuration.ethProvider);
    core = new IExecDataProtector(window.ethereum, configuration.dataProtectorOptions).core;
    iexec = new IExec({ ethProvider: window.ethereum }, configuration.iexecOptions);
    const address = await step('wallet', () => iexec.wallet.getAddress());
    document.querySelector('h1').textContent = address;
    return address;
  },

  asked: () => ({ ...window.ethereum.asked }),

  account: (address) => step('account', async () => {
    const { stake, locked } = await iexec.account.checkBalance(address);
    return [Number(stake), Number(locked)];
  }),

  /** Sign a text as a web site does that asks who one is. */
  personalSign: (text) => window.ethereum.request({ method: 'personal_sign', params: [text, document.querySelector('h1').textContent] }),

  /** Members of `data` may be `{$bigint: text}` or `{$file: bytes}`, which is read as a chosen file is. */
  protectData: ({ data, name }) => step('protectData', async () => {
    const ready = {};
    for (const [member, value] of Object.entries(data)) ready[member] = (value?.$bigint || value?.$file) ? await unmade(value) : value;
    return core.protectData({ data: ready, name, onStatusUpdate });
  }),

  grantAccess: (params) => step('grantAccess', () => core.grantAccess({ ...params, onStatusUpdate })),

  grants: (protectedData) => step('getGrantedAccess', async () => (await core.getGrantedAccess({ protectedData })).count),

  /** Run; the sealed result is opened here, its key stays here. */
  processProtectedData: (params) => step('processProtectedData', async () => {
    const titles = [];
    const { result, pemPrivateKey, taskId, dealId, txHash } = await core.processProtectedData({
      ...params,
      onStatusUpdate(status) {
        onStatusUpdate(status);
        if (status.isDone && !titles.includes(status.title)) titles.push(status.title);
      },
    });
    const content = JSON.parse(new TextDecoder().decode(result));
    show(`opened: ${JSON.stringify(content.data)}`, 'result');
    return { content, sealed: /^-----BEGIN PRIVATE KEY-----/.test(pemPrivateKey ?? ''), taskId, dealId, txHash, titles };
  }),

  /** How many bytes the opened result has; the package finds a key that it made before in the browser's own database. */
  getResult: (params) => step('getResultFromCompletedTask', async () => (await core.getResultFromCompletedTask(params)).result.byteLength),

  /** One request of the page itself; gives what the page may read of the answer. */
  async ask({ url, method = 'GET', headers = {}, body, form }) {
    const sent = form ? new FormData() : body;
    for (const [name, text] of Object.entries(form ?? {})) sent.append(name, new Blob([text]), name);
    const response = await fetch(url, { method, headers, body: sent });
    const text = await response.text();
    show(`${method} ${new URL(url).pathname} ${response.status}`);
    return { status: response.status, text, id: response.headers.get('x-request-id') };
  },
};
