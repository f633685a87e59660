// The frame of the node checks: names, one line for each, exit code 1 if any failed.
//
//     CHECKS_URL=redis://127.0.0.1:6400 CHECKS_MODULES=.servers/clients/node node node_redis.mjs [PART OF A NAME...]
//
// CHECKS_URL      where to connect: a server, or redtape before it
// CHECKS_MODULES  the folder that holds node_modules
// CHECKS_TLS_URL  the same by TLS (rediss://), CHECKS_TLS_CA its authority; without it checks of TLS are skipped
// CHECKS_DRIVER   if set, the server is restarted by whoever reads the line "driver: restart" and answers
//                 with one on stdin; without it, checks that need a restart are skipped
import { createRequire } from "node:module";
import { randomBytes } from "node:crypto";
import path from "node:path";
import readline from "node:readline";
import util from "node:util";

export const require = createRequire(path.resolve(process.env.CHECKS_MODULES ?? ".", "package.json"));
export const URL_ = process.env.CHECKS_URL;
export const TLS_URL = process.env.CHECKS_TLS_URL;
export const RUN = randomBytes(4).toString("hex");
export const key = (name) => `checks:${RUN}:${name}`;
export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
export const range = (n) => [...Array(n).keys()];

const checks = [];
export const check = (name, f) => checks.push([name, f]);
/** The same check in RESP2 and in RESP3. */
export const bothProtocols = (name, f) => [2, 3].forEach((p) => check(`${name}_resp${p}`, () => f(p)));

class Skip extends Error {}
export const skip = (why) => {
  throw new Skip(why);
};

export function same(got, want, what = "") {
  if (!util.isDeepStrictEqual(got, want)) {
    throw new Error(`${what}: got ${util.inspect(got).slice(0, 200)}, want ${util.inspect(want).slice(0, 200)}`);
  }
}

export function truth(value, what) {
  if (!value) throw new Error(what);
}

export async function fails(promise, pattern) {
  let reply;
  try {
    reply = await promise;
  } catch (e) {
    truth(pattern.test(`${e.constructor.name}: ${e.message}`), `failed with ${e.constructor.name}: ${e.message}`);
    return;
  }
  throw new Error(`no failure that matches ${pattern}, but ${util.inspect(reply)}`);
}

export async function waitFor(what, ask, limit = 10_000) {
  for (const end = Date.now() + limit; Date.now() < end; await sleep(10)) {
    if (await ask()) return;
  }
  throw new Error(`waited ${limit} ms in vain for ${what}`);
}

let lines;
export async function restartServer() {
  if (!process.env.CHECKS_DRIVER) skip("nobody restarts the server");
  lines ??= readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  console.log("driver: restart");
  truth(!(await lines.next()).done, "the driver went away");
}

export async function run(library) {
  const wanted = process.argv.slice(2);
  let failed = 0;
  for (const [name, f] of checks) {
    if (wanted.length && !wanted.some((part) => name.includes(part))) continue;
    const began = Date.now();
    let timer;
    const limit = new Promise((_, no) => (timer = setTimeout(() => no(new Error("no end after 90 s")), 90_000)));
    try {
      await Promise.race([f(), limit]);
      console.log(`ok    ${name} (${((Date.now() - began) / 1000).toFixed(2)} s)`);
    } catch (e) {
      if (e instanceof Skip) {
        console.log(`skip  ${name}: ${e.message}`);
      } else {
        failed += 1;
        console.log(`FAIL  ${name}: ${String(e?.message ?? e).replaceAll("\n", " ").slice(0, 300)}`);
        console.error(e);
      }
    }
    clearTimeout(timer);
  }
  console.log(`${library}: ${failed} failed`);
  process.exit(failed ? 1 : 0);
}
