// Reads Cookie headers as Node's frameworks do: one a line in hex, one line of JSON each.
//
//   read.js               every parser's pairs, {"parser": [["name", "value"], ...]} with the strings in hex
//   read.js set           Set-Cookie fields, as tough-cookie's jar keeps them
//
// `cookies` looks for one name at a time: the names stand in the environment variable NAMES, in JSON.
'use strict';
const path = require('node:path');
const readline = require('node:readline');
const { createRequire } = require('node:module');

const from = createRequire(path.resolve(process.env.NODE_PLACE, 'package.json'));
const hex = (text) => Buffer.from(String(text), 'utf8').toString('hex');
// Node gives headers as Latin-1.
const header = (line) => Buffer.from(line, 'hex').toString('latin1');

function requestParsers() {
  const Cookies = from('cookies');
  const names = JSON.parse(process.env.NAMES);
  const object = (parse) => (text) => Object.entries(parse(text)).filter(([, value]) => value !== undefined);
  const koa = (text) => {
    const cookies = new Cookies({ headers: { cookie: text } }, {});
    return names.map((name) => [name, cookies.get(name, { signed: false })]).filter(([, v]) => v !== undefined);
  };
  const newest = from('cookie');
  return {
    cookie: object(newest.parseCookie ?? newest.parse),
    'cookie of express': object(from('cookie-of-express').parse),
    'cookie, old': object(from('cookie-of-old').parse),
    'cookies of koa': koa,
  };
}

function readRequest(parsers) {
  return (line) => {
    const text = header(line);
    const read = {};
    for (const [name, parse] of Object.entries(parsers)) {
      read[name] = parse(text).map(([key, value]) => [hex(key), hex(value)]);
    }
    return read;
  };
}

function readSetCookie({ Cookie }) {
  return (line) => {
    const cookie = Cookie.parse(header(line));
    if (!cookie) return { 'tough-cookie': [] };
    const { key, value, path: at, domain } = cookie;
    const now = new Date(Number(process.env.NOW_MS));
    const read = { name: hex(key), value: hex(value), path: hex(at ?? ''), domain: hex(domain ?? '') };
    const expires = cookie.expiryTime(now);
    return { 'tough-cookie': [{ ...read, deletes: expires !== undefined && expires <= now.getTime() }] };
  };
}

const read = process.argv[2] === 'set' ? readSetCookie(from('tough-cookie')) : readRequest(requestParsers());
let out = [];
readline
  .createInterface({ input: process.stdin })
  .on('line', (line) => out.push(JSON.stringify(read(line))))
  .on('close', () => process.stdout.write(out.join('\n') + '\n'));
