// The wallet that a browser's extension would put into a page: EIP-1193 requests (https://eips.ethereum.org/EIPS/eip-1193),
// signed with a key in the page; what needs no key goes to the chain.
import { getBytes, JsonRpcProvider, Wallet } from 'ethers';

/** What a wallet answers that will not serve a request, with the code that EIP-1193 gives it. */
export class WalletError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

const hex = (value) => (value === undefined || value === null ? undefined : BigInt(value));

export class PageWallet {
  #signer;
  #chain;
  #url;
  /** How often each method was asked for. */
  asked = {};

  constructor(key, url) {
    this.#url = url;
    this.#chain = new JsonRpcProvider(url, undefined, { polling: true, pollingInterval: 200 });
    this.#signer = new Wallet(key, this.#chain);
  }

  async request({ method, params = [] }) {
    this.asked[method] = (this.asked[method] ?? 0) + 1;
    switch (method) {
      case 'eth_requestAccounts':
      case 'eth_accounts':
        return [this.#signer.address.toLowerCase()];
      case 'personal_sign':
        this.#mine(params[1]);
        return this.#signer.signMessage(getBytes(params[0]));
      case 'eth_signTypedData_v4':
        this.#mine(params[0]);
        return this.#signTyped(typeof params[1] === 'string' ? JSON.parse(params[1]) : params[1]);
      case 'eth_sendTransaction':
        this.#mine(params[0].from);
        return this.#send(params[0]);
      default:
        return this.#forward(method, params);
    }
  }

  on() {
    return this;
  }

  removeListener() {
    return this;
  }

  #mine(address) {
    if (address?.toLowerCase() !== this.#signer.address.toLowerCase()) throw new WalletError(4100, `not an account of this wallet: ${address}`);
  }

  #signTyped({ domain, types: { EIP712Domain, ...types }, message }) {
    if (!EIP712Domain) throw new WalletError(-32602, 'the typed data has no EIP712Domain');
    return this.#signer.signTypedData(domain, types, message);
  }

  /** Sign and send. The gas is half as much again as asked or estimated, as wallets do: the chain moves meanwhile. */
  async #send({ to, data, value, gas }) {
    const asked = hex(gas) ?? (await this.#signer.estimateGas({ to, data, value: hex(value) }));
    const sent = await this.#signer.sendTransaction({ to, data, value: hex(value), gasLimit: (asked * 3n) / 2n });
    return sent.hash;
  }

  async #forward(method, params) {
    const response = await fetch(this.#url, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ jsonrpc: '2.0', id: 1, method, params }),
    });
    const { result, error } = await response.json();
    if (error) throw Object.assign(new WalletError(error.code, error.message), { data: error.data });
    return result;
  }
}
