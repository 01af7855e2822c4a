// Kubo's own JavaScript client: everything it can do with immutable content.
import { randomBytes } from 'node:crypto';
import { CID, create } from 'kubo-rpc-client';
import { assert, flow, network } from '../../harness.mjs';

const HELLO = 'Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD';
const HELLO_RAW = 'bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e';
const origin = network.services.gateway;
const node = create({ url: origin });
const all = async (source) => { const out = []; for await (const each of source) out.push(each); return out; };
const bytes = async (source) => Buffer.concat(await all(source));
const text = async (source) => (await bytes(source)).toString();
const LONG = randomBytes(3 * 1024 * 1024 + 17);

await flow(async ({ check }) => {
  await check('add: bytes, text, a blob, a stream; the CID is Kubo’s', async () => {
    async function* pieces() { yield Buffer.from('hello '); yield Buffer.from('world'); }
    const stream = () => new ReadableStream({ start(c) { c.enqueue(Buffer.from('hello world')); c.close(); } });
    for (const source of ['hello world', Buffer.from('hello world'), new Blob(['hello world']), pieces(), stream()]) {
      const added = await node.add(source);
      assert.deepEqual([added.path, added.cid.toString(), added.size], [HELLO, HELLO, 19]);
    }
  });
  await check('add: what was added is readable at once, by client and by path', async () => {
    const fresh = `fresh ${randomBytes(8).toString('hex')}`;
    const { cid } = await node.add(fresh);
    assert.equal(await text(node.cat(cid)), fresh);
    const answer = await fetch(`${origin}/ipfs/${cid}`, { headers: { accept: 'application/zip' } });
    assert.deepEqual([answer.status, await answer.text()], [200, fresh]);
    assert.equal((await fetch(`${origin}/ipfs/${cid}`, { method: 'HEAD' })).status, 200);
  });
  await check('add: options that choose the CID', async () => {
    const of = async (options) => (await node.add('hello world', options)).cid.toString();
    assert.equal(await of({ cidVersion: 1 }), HELLO_RAW);
    assert.equal(await of({ rawLeaves: true }), HELLO_RAW);
    assert.match(await of({ cidVersion: 1, rawLeaves: false }), /^bafybei/);
    assert.equal(await of({ pin: false, hashAlg: 'sha2-256', chunker: 'size-262144', timeout: 5000 }), HELLO);
    const hashed = await node.add(randomBytes(100), { onlyHash: true });
    await assert.rejects(bytes(node.cat(hashed.cid)), /no content under/);
  });
  await check('add: a named file in a directory', async () => {
    const added = await node.add({ path: 'greeting.txt', content: 'hello world' }, { wrapWithDirectory: true });
    assert.equal(added.path, '');
    assert.equal(await text(node.cat(`${added.cid}/greeting.txt`)), 'hello world');
  });
  await check('add: tells how far it is, while it goes on', async () => {
    const told = [];
    const added = await node.add({ path: 'long.bin', content: LONG }, { progress: (size, path) => told.push([size, path]) });
    assert.ok(told.length >= 10, `${told.length} reports`);
    assert.deepEqual(told.at(-1), [LONG.length, 'long.bin']);
    assert.deepEqual(told.map(([size]) => size), told.map(([size]) => size).sort((a, b) => a - b));
    assert.ok((await bytes(node.cat(added.cid))).equals(LONG));
  });
  await check('addAll: a tree, inside out', async () => {
    const tree = [
      { path: 'tree/a.txt', content: 'a' }, { path: 'tree/b/c.txt', content: 'cc' },
      { path: 'tree/b/a name & ü.txt', content: 'odd' }, { path: 'tree/empty' }];
    const added = await all(node.addAll(tree));
    const paths = added.map((each) => each.path);
    assert.equal(paths.at(-1), 'tree');
    assert.deepEqual([...paths].sort(), ['tree', 'tree/a.txt', 'tree/b', 'tree/b/a name & ü.txt', 'tree/b/c.txt', 'tree/empty']);
    const root = added.at(-1).cid;
    assert.equal(await text(node.cat(`/ipfs/${root}/b/a name & ü.txt`)), 'odd');
    const rows = await all(node.ls(root));
    assert.deepEqual(rows.map(({ name, type, size, path }) => [name, type, size, path]), [
      ['a.txt', 'file', 1, `${root}/a.txt`], ['b', 'dir', 0, `${root}/b`], ['empty', 'dir', 0, `${root}/empty`]]);
    const { Objects: [inside] } = await (await fetch(`${origin}/api/v0/ls?arg=${root}/empty`, { method: 'POST' })).json();
    assert.deepEqual(inside, { Hash: `${root}/empty`, Links: [] });
  });
  const long = (await node.add(LONG)).cid;
  await check('cat: parts of a file', async () => {
    assert.ok((await bytes(node.cat(long, { offset: 1_000_000, length: 600_000 }))).equals(LONG.subarray(1_000_000, 1_600_000)));
    assert.equal((await bytes(node.cat(long, { offset: LONG.length }))).length, 0);
    await assert.rejects(text(node.cat((await node.add({ path: 'd/x', content: '1' }, { wrapWithDirectory: true })).cid)), /is a directory/);
  });
  await check('ls: a file is itself', async () => {
    const rows = await all(node.ls(HELLO));
    assert.deepEqual(rows.map(({ cid, type }) => [cid.toString(), type]), [[HELLO, 'file']]);
  });
  await check('get: an archive that holds every byte', async () => {
    const archive = await bytes(node.get(long));
    assert.ok(archive.indexOf(LONG) > 0);
    assert.equal(archive.subarray(257, 262).toString(), 'ustar');
    const packed = await bytes(node.get(long, { archive: true, compress: true, compressionLevel: 1 }));
    assert.deepEqual([...packed.subarray(0, 2)], [0x1f, 0x8b]);
  });
  await check('files.stat: of a path under /ipfs', async () => {
    const found = await node.files.stat(`/ipfs/${HELLO}`);
    assert.deepEqual([found.cid.toString(), found.size, found.cumulativeSize, found.type], [HELLO, 11, 19, 'file']);
  });
  await check('block.get, block.stat: the bytes that hash to the CID', async () => {
    const block = await node.block.get(CID.parse(HELLO_RAW));
    assert.equal(Buffer.from(block).toString(), 'hello world');
    const stat = await node.block.stat(long);
    assert.equal(stat.size, (await node.block.get(long)).length);
  });
  await check('dag.get, dag.resolve, dag.export: blocks as data', async () => {
    const { value } = await node.dag.get(long);
    assert.equal(value.Links.length, 13);
    assert.equal((await node.dag.resolve(long)).cid.toString(), long.toString());
    assert.ok((await bytes(node.dag.export(long))).length > LONG.length);
  });
  await check('refs: the links of a file', async () => {
    const found = await all(node.refs(long, { recursive: true }));
    assert.equal(found.length, 13);
    assert.ok(found.every(({ ref, err }) => CID.parse(ref) && !err));
  });
  await check('pin.add, pin.addAll, pin.ls: all that is stored is kept', async () => {
    assert.equal((await node.pin.add(long)).toString(), long.toString());
    assert.deepEqual((await all(node.pin.addAll([HELLO, long]))).map(String), [HELLO, long.toString()]);
    const one = await all(node.pin.ls({ paths: long }));
    assert.deepEqual(one.map(({ cid, type }) => [cid.toString(), type]), [[long.toString(), 'recursive']]);
    assert.ok((await all(node.pin.ls())).some(({ cid }) => cid.equals(long)));
    assert.deepEqual(await all(node.pin.ls({ type: 'direct' })), []);
  });
  await check('resolve: the CID under a path', async () => {
    const { cid } = await node.add({ path: 'a/b', content: 'hello world' }, { wrapWithDirectory: true });
    assert.equal(await node.resolve(`/ipfs/${cid}/a/b`), `/ipfs/${HELLO}`);
  });
  await check('version, id, isOnline, repo.stat, repo.version, swarm.peers: what this node is', async () => {
    assert.match((await node.version()).version, /^\d+\.\d+/);
    const who = await node.id();
    assert.match(who.agentVersion, /^cloister\//);
    assert.deepEqual(who.addresses, []);
    assert.equal(typeof (await node.isOnline()), 'boolean');
    const stat = await node.repo.stat();
    assert.ok(stat.numObjects > 0n && stat.repoSize > 0n);
    assert.match(String(await node.repo.version()), /^\d+$/);
    assert.deepEqual(await node.swarm.peers(), []);
  });
  await check('name.publish, key.list, files.write, pubsub.ls, block.rm, pin.rm: refused by name', async () => {
    const refused = [
      () => node.name.publish(HELLO), () => node.key.list(), () => node.files.write('/x', Buffer.from('x'), { create: true }),
      () => node.pubsub.ls(), () => all(node.block.rm(CID.parse(HELLO))), () => node.pin.rm(HELLO),
      () => node.dag.put({ a: 1 }), () => node.config.getAll(), () => all(node.name.resolve('/ipns/example.org'))];
    for (const call of refused) await assert.rejects(async () => call(), /is not offered by this node/);
  });
  await check('add: what would change the CID behind one’s back is refused', async () => {
    await assert.rejects(node.add('x', { trickle: true }), /trickle is not supported/);
    await assert.rejects(node.add('x', { chunker: 'rabin' }), /chunker rabin is not supported/);
    await assert.rejects(node.add('x', { hashAlg: 'blake3' }), /hash blake3 is not supported/);
    await assert.rejects(node.add({ content: 'x', path: 'f', mode: 0o644 }), /mode and mtime/);
    await assert.rejects(text(node.cat('nonsense')), /not a cid/i);
  });
});
