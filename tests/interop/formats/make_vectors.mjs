// Makes the vectors that the reference clients vouch for: node make_vectors.mjs FOLDER
// FOLDER gets iexec_cbc.json, dataprotector_archives.json, dataprotector_refusals.json and media_types.json.
import { writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { IExec } from 'iexec';

const folder = process.argv[2];
const data = await import(resolve('node_modules/@iexec/dataprotector/dist/src/utils/data.js'));
const base64 = (bytes) => Buffer.from(bytes).toString('base64');
const write = (name, value) => writeFileSync(join(folder, name), `${JSON.stringify(value, null, 1)}\n`);

const { dataset } = new IExec({ ethProvider: 'http://127.0.0.1:1' });
const contents = [0, 1, 15, 16, 17, 1000].map((size) => Uint8Array.from({ length: size }, (_, i) => (i * 7) % 256));
const encrypted = [];
for (const content of contents) {
  const key = dataset.generateEncryptionKey();
  const sealed = await dataset.encrypt(content, key);
  const checksum = await dataset.computeEncryptedFileChecksum(sealed);
  encrypted.push({ key, plaintext: base64(content), encrypted: base64(sealed), checksum });
}
write('iexec_cbc.json', { made_by: 'iexec 9.0.1, dataset.encrypt', cases: encrypted });

// A value as JSON shows it: {type, value}; bytes in base64, i128 in decimal.
const objects = [
  { email: 'a@b.c' },
  { text: '', unicode: 'héllo €😀', four: 'abcd', twelve: 'abcdefghijkl' },
  { yes: true, no: false, half: 1.5, minus: -0.1, big: 1e300, zero: 0 },
  { one: 1n, minusOne: -1n, twelve: 12n, max: 2n ** 127n - 1n, min: -(2n ** 127n) },
  { a: { b: { c: { d: 'deep' } }, e: 2 }, f: { g: new Uint8Array([1, 2, 3]) } },
  { png: Uint8Array.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 13]), empty: new Uint8Array(0) },
  Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`entry-${i}`, i])),
];
const flat = (value, prefix = '') =>
  Object.entries(value).flatMap(([key, item]) => {
    const path = prefix + key;
    if (item instanceof Uint8Array) return [{ path, kind: 'bytes', value: base64(item) }];
    if (typeof item === 'object') return flat(item, `${path}.`);
    return [{ path, kind: typeof item, value: String(item) }];
  });
const archives = [];
for (const object of objects) {
  data.ensureDataObjectIsValid(object);
  const schema = await data.extractDataSchema(object);
  const zip = await data.createZipFromObject(object);
  const key = dataset.generateEncryptionKey();
  const sealed = await dataset.encrypt(zip, key);
  archives.push({ schema: JSON.stringify(schema), values: flat(object), archive: base64(zip), key, encrypted: base64(sealed) });
}
write('dataprotector_archives.json', { made_by: '@iexec/dataprotector 2.0.0-beta.27 and iexec 9.0.1', cases: archives });

const refused = {
  'empty key': { '': 1 },
  'special character': { 'a.b': 1 },
  space: { 'a b': 1 },
  accent: { é: 1 },
  'nested special character': { a: { 'b/c': 1 } },
  null: { a: null },
  undefined: { a: undefined },
  array: { a: [1] },
  function: { a: () => 1 },
  infinity: { a: Infinity },
  'minus infinity': { a: -Infinity },
  'not a number': { a: NaN },
  'over i128': { a: 2n ** 127n },
  'under i128': { a: -(2n ** 127n) - 1n },
  'empty object': {},
};
const refusals = [];
for (const [name, object] of Object.entries(refused)) {
  let message = null;
  try {
    data.ensureDataObjectIsValid(object);
    await data.createZipFromObject(object);
  } catch (error) {
    message = error.message;
  }
  refusals.push({ name, message });
}
write('dataprotector_refusals.json', { made_by: '@iexec/dataprotector 2.0.0-beta.27', cases: refusals });

const text = (value) => [...value].map((c) => c.charCodeAt(0));
const padded = (head) => Uint8Array.from([...head, ...new Array(Math.max(0, 64 - head.length)).fill(0x41)]);
const heads = {
  pdf: text('%PDF-1.7'),
  xml: text('<?xml version="1.0"?>'),
  zip: [0x50, 0x4b, 3, 4],
  'zip, empty': [0x50, 0x4b, 5, 6],
  'zip, spanned': [0x50, 0x4b, 7, 8],
  midi: text('MThd'),
  'mp3, tagged': text('ID3'),
  'mp3, fb': [0xff, 0xfb],
  'mp3, f3': [0xff, 0xf3],
  'mp3, f2': [0xff, 0xf2],
  wav: text('RIFF\x01\x02\x03\x04WAVEfmt '),
  webp: text('RIFF\x01\x02\x03\x04WEBPVP8 '),
  avi: text('RIFF\x01\x02\x03\x04AVI LIST'),
  bmp: text('BM'),
  gif87: text('GIF87a'),
  gif89: text('GIF89a'),
  jpeg: [0xff, 0xd8, 0xff, 0xe0],
  'jpeg, exif': [0xff, 0xd8, 0xff, 0xe1],
  'jpeg, raw': [0xff, 0xd8, 0xff, 0xdb],
  png: [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a],
  'mp4, isom': [0, 0, 0, 0x18, ...text('ftypisom')],
  'mp4, mp42': [0, 0, 0, 0x18, ...text('ftypmp42')],
  'mp4, MSNV': [0, 0, 0, 0x18, ...text('ftypMSNV')],
  'mp4, qt': [0, 0, 0, 0x14, ...text('ftypqt  ')],
  'mp4, M4V': [0, 0, 0, 0x1c, ...text('ftypM4V ')],
  'mp4, heic': [0, 0, 0, 0x18, ...text('ftypheic')],
  ...Object.fromEntries(
    ['iso2', 'iso4', 'iso5', 'iso6', 'mp41', 'avc1', 'dash', 'M4A ', 'M4VH', 'M4VP', 'mmp4', 'F4V ', '3gp4', '3gp5', 'NDSC', 'XXXX', 'heix', 'mif1', 'msf1', 'avif', 'avis', 'crx ', 'hevc', 'jp2 '].map(
      (brand) => [`mp4, ${brand}`, [0, 0, 0, 0x18, ...text(`ftyp${brand}`)]],
    ),
  ),
  'mp3, fa': [0xff, 0xfa],
  'mp3, e3': [0xff, 0xe3],
  'xml, byte order mark': [0xef, 0xbb, 0xbf, ...text('<?xml version')],
  'xml, utf-16': [0xff, 0xfe, 0x3c, 0, 0x3f, 0, 0x78, 0, 0x6d, 0, 0x6c, 0],
  'xml, no space': text('<?xml?>'),
  'jpeg, short': [0xff, 0xd8, 0xff],
  'jpeg, jp2': [0xff, 0xd8, 0xff, 0xe2],
  'jpeg, ee': [0xff, 0xd8, 0xff, 0xee],
  'jpeg, fe': [0xff, 0xd8, 0xff, 0xfe],
  'riff, other': text('RIFF\x01\x02\x03\x04ACON'),
  'pdf, no dash': text('%PDF1.7'),
  'mpeg, pack': [0, 0, 1, 0xba],
  'mpeg, sequence': [0, 0, 1, 0xb3],
  'mpeg, other': [0, 0, 1, 0xb0],
  gzip: [0x1f, 0x8b, 8],
  html: text('<!DOCTYPE html>'),
  parquet: text('PAR1'),
  nothing: text('hello world'),
};
const media = [];
for (const [name, head] of Object.entries(heads)) {
  const { a } = await data.extractDataSchema({ a: padded(head) });
  media.push({ name, head: base64(padded(head)), type: a });
}
write('media_types.json', { made_by: '@iexec/dataprotector 2.0.0-beta.27, extractDataSchema', cases: media });
process.exit(0);
