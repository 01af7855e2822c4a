// Makes HPKE envelopes with a second implementation: node hpke_vectors.mjs FOLDER (gets hpke_xwing.json), and opens ours:
// node hpke_vectors.mjs open SEED_HEX INFO_HEX SEALED_BASE64 (prints the plaintext in base64).
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Aes256Gcm, CipherSuite, HkdfSha256 } from '@hpke/core';
import { XWing } from '@hpke/hybridkem-x-wing';

const suite = new CipherSuite({ kem: new XWing(), kdf: new HkdfSha256(), aead: new Aes256Gcm() });
const hex = (bytes) => Buffer.from(bytes).toString('hex');
const bytes = (text, encoding = 'hex') => Uint8Array.from(Buffer.from(text, encoding));
const ENCAPSULATED = 1120;

if (process.argv[2] === 'open') {
  const [, , , seed, info, sealedText] = process.argv;
  const sealed = bytes(sealedText, 'base64');
  const recipientKey = await suite.kem.importKey('raw', bytes(seed).buffer, false);
  const context = await suite.createRecipientContext({
    recipientKey,
    enc: sealed.slice(0, ENCAPSULATED).buffer,
    info: bytes(info).buffer,
  });
  const opened = await context.open(sealed.slice(ENCAPSULATED).buffer);
  process.stdout.write(Buffer.from(opened).toString('base64'));
} else {
  const cases = [];
  for (const [index, size] of [0, 1, 32, 1000].entries()) {
    const material = Uint8Array.from({ length: 32 }, (_, i) => (i * 31 + index * 97) % 256);
    const { publicKey, privateKey } = await suite.kem.deriveKeyPair(material.buffer);
    const seed = new Uint8Array(await suite.kem.serializePrivateKey(privateKey));
    const raw = await suite.kem.serializePublicKey(publicKey);
    const info = Buffer.from(`cloister/vector/${index}`);
    const plaintext = Uint8Array.from({ length: size }, (_, i) => i % 251);
    const sender = await suite.createSenderContext({ recipientPublicKey: publicKey, info });
    const ciphertext = await sender.seal(plaintext.buffer);
    cases.push({
      seed: hex(seed),
      public: Buffer.from(raw).toString('base64'),
      info: hex(info),
      plaintext: hex(plaintext),
      sealed: Buffer.concat([Buffer.from(sender.enc), Buffer.from(ciphertext)]).toString('base64'),
    });
  }
  writeFileSync(
    join(process.argv[2], 'hpke_xwing.json'),
    `${JSON.stringify({ made_by: '@hpke/core 1.9.0 and @hpke/hybridkem-x-wing 0.7.0', cases }, null, 1)}\n`,
  );
}
