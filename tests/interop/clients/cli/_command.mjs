// What the flows of the command line share: folders of projects and commands run in them without a terminal.
import { execFile } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { concat, keccak256, toBeHex, zeroPadValue } from 'ethers';
import { assert, configuration, context } from '../../harness.mjs';

const CLI = join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'node_modules', 'iexec', 'dist', 'esm', 'cli', 'cmd');
const MAIN = new Set(['init', 'info']);
const seconds = 120;

export const TAG = ['--tag', 'tee,tdx'];

/** The first task of a deal. */
export const taskOf = (dealid) => keccak256(concat([dealid, zeroPadValue(toBeHex(0), 32)]));

/** The program and the arguments that `iexec <noun> …` starts after it has read the noun. */
function program(words) {
  return MAIN.has(words[0]) ? [join(CLI, 'iexec.js'), ...words] : [join(CLI, `iexec-${words[0]}.js`), ...words.slice(1)];
}

/**
 * A project folder of one person. `run('app deploy', …)` gives the JSON that the command prints with --raw and fails when the
 * command does; `fails('app deploy', …)` gives the JSON of its refusal (some refuse with exit code 0).
 */
export class Project {
  constructor(name, { chain = true, key } = {}) {
    this.folder = join(context.folder, name);
    mkdirSync(this.folder);
    if (chain) this.write('chain.json', configuration.chainJson);
    this.key = key;
  }

  path(name) {
    return join(this.folder, name);
  }

  read(name) {
    return JSON.parse(readFileSync(this.path(name), 'utf8'));
  }

  write(name, value) {
    writeFileSync(this.path(name), typeof value === 'string' || Buffer.isBuffer(value) ? value : JSON.stringify(value));
  }

  /** Change members of a section of iexec.json. */
  edit(section, members) {
    const conf = this.read('iexec.json');
    this.write('iexec.json', { ...conf, [section]: { ...conf[section], ...members } });
  }

  /** Start a command as a shell would; gives how it ended. */
  start(command, ...rest) {
    return this.spawn(program([...command.split(' '), ...rest.map(String)]), `${command} ${rest.join(' ')}`);
  }

  /** As a user does, through the package's only executable. */
  whole(command, ...rest) {
    return this.spawn([join(CLI, 'iexec.js'), ...command.split(' '), ...rest.map(String)], command);
  }

  spawn(words, shown) {
    const env = { PATH: process.env.PATH, HOME: this.folder, NO_COLOR: '1' };
    return new Promise((resolve) => {
      const child = execFile(process.execPath, ['--no-warnings', ...words], { cwd: this.folder, env, timeout: seconds * 1000, maxBuffer: 1 << 24 }, (error, stdout, stderr) =>
        resolve({ shown, code: error ? (error.code ?? error.signal) : 0, stdout, stderr }));
      child.stdin.end();
    });
  }

  async run(command, ...rest) {
    const ended = await this.start(command, ...rest, '--raw');
    const what = `iexec ${ended.shown} ended with ${ended.code}\n${ended.stdout}${ended.stderr}`;
    assert.ok(ended.code === 0 && ended.stdout, what);
    const said = JSON.parse(ended.stdout.trim().split('\n').at(-1));
    assert.equal(said.ok, true);
    return said;
  }

  async fails(command, ...rest) {
    const ended = await this.start(command, ...rest, '--raw');
    assert.equal(ended.stdout, '', `iexec ${ended.shown} was not refused`);
    const said = JSON.parse(ended.stderr.trim().split('\n').at(-1));
    assert.equal(said.ok, false);
    return said;
  }
}

/** A project whose wallet owns a deployed app. */
export async function withApp(name, person) {
  const project = new Project(name);
  project.write('wallet.json', { privateKey: person.key, address: person.address });
  project.write('iexec.json', {
    app: { owner: person.address, name, type: 'DOCKER', multiaddr: context.app.multiaddr, checksum: context.app.checksum },
    workerpool: { owner: person.address, description: 'nobody' },
  });
  project.write('orders.json', { 421614: {} });
  project.app = (await project.run('app deploy')).address;
  return project;
}
