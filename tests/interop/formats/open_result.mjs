// Opens a sealed RSA result with the reference client: node open_result.mjs ARCHIVE PRIVATE_KEY_PEM > inner.zip
import { readFileSync } from 'node:fs';
import { utils } from 'iexec';

const [, , archive, pem] = process.argv;
const opened = await utils.decryptResult(readFileSync(archive), readFileSync(pem, 'utf8'));
process.stdout.write(Buffer.from(opened), () => process.exit(0));
