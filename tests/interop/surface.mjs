// Prints the public methods of each installed package as JSON: { package: [method, …] }. Asked of the packages themselves:
// modules of an instance, their functions, what is exported; the command line is asked with --help.
import { execFile } from 'node:child_process';
import { cpus } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import * as iexec from 'iexec';
import * as iexec8 from 'iexec8';
import * as protector from '@iexec/dataprotector';
import * as protector0 from 'dataprotector0';
import * as deserializer from '@iexec/dataprotector-deserializer';

const HERE = dirname(fileURLToPath(import.meta.url));
const CLI = join(HERE, 'node_modules', 'iexec', 'dist', 'esm', 'cli', 'cmd', 'iexec.js');
const HUB = '0x' + '11'.repeat(20);
const run = promisify(execFile);

/** Names of functions that an object has itself or inherits, without constructors and what begins with '_'. */
function functions(object) {
  const names = new Set();
  for (let at = object; at && at !== Object.prototype && at !== Function.prototype; at = Object.getPrototypeOf(at)) {
    for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(at))) {
      if (typeof value === 'function' && name !== 'constructor' && !name.startsWith('_')) names.add(name);
    }
  }
  return [...names];
}

const isClass = (value) => typeof value === 'function' && /^class\b/.test(Function.prototype.toString.call(value));

/** The library: functions of each module of an instance, of its configuration, and everything in utils. */
function library({ IExec, IExecConfig, utils }) {
  const arguments_ = [{ ethProvider: 'http://127.0.0.1:9' }, { hubAddress: HUB }];
  const instance = new IExec(...arguments_);
  const names = [];
  for (const [module, value] of Object.entries(instance)) {
    if (value === null || typeof value !== 'object' || module === 'config') continue;
    names.push(...functions(value).map((name) => `${module}.${name}`));
  }
  names.push(...functions(new IExecConfig(...arguments_)).map((name) => `IExecConfig.${name}`));
  names.push(...Object.keys(utils).map((name) => `utils.${name}`));
  return names;
}

/** What the packages' own types declare private. */
const PRIVATE = new Set(['init', 'resolveConfig']);

/** Methods of exported classes (error classes apart) by bare name, and exported functions. */
function exported(module, make) {
  const names = [];
  for (const [name, value] of Object.entries(module)) {
    if (!isClass(value)) {
      if (typeof value === 'function') names.push(name);
    } else if (!(value.prototype instanceof Error)) {
      names.push(...functions(make(value) ?? value.prototype).filter((method) => !PRIVATE.has(method)));
    }
  }
  return names;
}

/** Every command of the command line, asked level by level; help is no command. */
async function commands(path = []) {
  const { stdout } = await run(process.execPath, ['--no-warnings', CLI, ...path, '--help'], { env: { ...process.env, NO_COLOR: '1' } });
  const [, list = ''] = stdout.split(/^\s*Commands:\s*$/m);
  const found = [...list.matchAll(/^ {2}([a-z][A-Za-z0-9-]*)(?:\|[a-z-]+)?(?= |$)/gm)].map(([, name]) => name).filter((name) => name !== 'help');
  if (path.length && !found.length) return [path.join(' ')];
  const below = [];
  for (let start = 0; start < found.length; start += cpus().length) {
    const several = found.slice(start, start + cpus().length).map((name) => (path.length ? [[...path, name].join(' ')] : commands([name])));
    below.push(...(await Promise.all(several)).flat());
  }
  return below;
}

const surface = {
  iexec: library(iexec),
  iexec8: library(iexec8),
  dataprotector2: exported(protector, (Class) => new Class('http://127.0.0.1:9')),
  dataprotector0: exported(protector0, (Class) => new Class('http://127.0.0.1:9')),
  deserializer: exported(deserializer, () => null),
  cli: await commands(),
};
for (const name of Object.keys(surface)) surface[name] = [...new Set(surface[name])].sort();
process.stdout.write(JSON.stringify(surface) + '\n', () => process.exit(0));
