// What applications do with node-redis; each reply is checked against its request. See run.mjs.
import { createHash } from "node:crypto";
import fs from "node:fs";
import { RUN, TLS_URL, URL_, bothProtocols, check, fails, key, range, require, restartServer, run, same, skip, sleep,
  truth, waitFor } from "./run.mjs";

const { createClient, createClientPool, ErrorReply, RESP_TYPES } = require("redis");
const version = require("redis/package.json").version;

const made = [];
const options = (more = {}) => ({
  url: URL_,
  ...more,
  socket: { reconnectStrategy: () => 50, ...more.socket },
});

async function connect(more) {
  const client = createClient(options(more));
  client.on("error", () => {});
  made.push(client);
  return client.connect();
}

/** A check whose clients are closed at its end, however that comes. */
const closing = (f) => async (...args) => {
  try {
    await f(...args);
  } finally {
    for (const client of made.splice(0)) {
      try {
        client.destroy();
      } catch {
        // It is closed already.
      }
    }
  }
};

bothProtocols("auto_pipelining", closing(async (RESP) => {
  const r = await connect({ RESP });
  await Promise.all(range(5000).map(async (n) => {
    const mark = `m${n}`;
    const [, got, echo] = await Promise.all([r.set(key(`p${n % 97}:${n}`), mark), r.get(key(`p${n % 97}:${n}`)), r.echo(mark)]);
    same([got, echo], [mark, mark], "another's reply");
  }));
}));

bothProtocols("pool", closing(async (RESP) => {
  const pool = createClientPool(options({ RESP }), { minimum: 2, maximum: 8, acquireTimeout: 20_000 });
  pool.on("error", () => {});
  made.push(pool);
  await pool.connect();
  await Promise.all(range(40).map(async (w) => {
    for (const n of range(50)) {
      const mark = `${w}-${n}`;
      same(await pool.set(key(`w${w}`), mark), "OK");
      same(await pool.get(key(`w${w}`)), mark, "another's reply");
      same(await pool.execute(async (c) => [await c.echo(mark), await c.incr(key(`n${w}${RESP}`))]), [mark, n + 1]);
    }
  }));
}));

bothProtocols("transactions", closing(async (RESP) => {
  const r = await connect({ RESP });
  const other = await connect({ RESP });
  const account = key("account");
  await r.set(account, "10");
  same(await r.multi().incr(account).get(account).exec(), [11, "11"]);
  await r.watch(account);
  same(await r.multi().incr(account).exec(), [12]);
  await r.watch(account);
  await other.incr(account);
  await fails(r.multi().set(account, "0").exec(), /WatchError/);
  await r.watch(account);
  await other.incr(account);
  await r.unwatch();
  same(await r.multi().incr(account).exec(), [15]);
  // A wrong command in a transaction fails alone; the rest runs.
  await fails(r.multi().set(key("text"), "a").incr(key("text")).get(key("text")).exec(), /MultiErrorReply|not an integer/);
  same(await r.get(key("text")), "a");
  // Optimistic counting by many on a pool: none is lost.
  const pool = createClientPool(options({ RESP }), { minimum: 6, maximum: 6 });
  pool.on("error", () => {});
  made.push(pool);
  await pool.connect();
  await r.set(account, "0");
  await Promise.all(range(6).map((_) => pool.execute(async (c) => {
    for (let n = 0; n < 20;) {
      await c.watch(account);
      const value = Number(await c.get(account));
      try {
        await c.multi().set(account, String(value + 1)).exec();
        n += 1;
      } catch (e) {
        truth(e.constructor.name === "WatchError", e);
      }
    }
  })));
  same(await r.get(account), "120");
}));

bothProtocols("publish_subscribe", closing(async (RESP) => {
  const r = await connect({ RESP });
  const sub = await connect({ RESP });
  const got = [];
  const listener = (message, channel) => got.push(`${channel}=${message}`);
  await sub.subscribe([key("a"), key("b")], listener);
  await sub.pSubscribe(key("p*"), listener);
  await sub.sSubscribe(key("s"), listener);
  const want = [];
  for (const n of range(200)) {
    const channel = key(["a", "b", "p1", "p2"][n % 4]);
    same(await r.publish(channel, `m${n}`), 1);
    want.push(`${channel}=m${n}`);
  }
  same(await r.sPublish(key("s"), "shard"), 1);
  want.push(`${key("s")}=shard`);
  await waitFor("all messages", () => got.length === want.length);
  same(got.filter((m) => !m.endsWith("shard")), want.slice(0, -1), "order of messages");
  if (RESP === 3) same(await sub.echo("in between"), "in between");
  await sub.unsubscribe();
  await sub.pUnsubscribe();
  await sub.sUnsubscribe();
  same(await r.publish(key("a"), "nobody"), 0);
  // In RESP2 the library itself hands out a Buffer after UNSUBSCRIBE.
  same(String(await sub.echo("a client again")), "a client again");
}));

bothProtocols("blocking_queues", closing(async (RESP) => {
  const r = await connect({ RESP });
  const done = [];
  const consumers = range(5).map(async () => {
    const mine = await connect({ RESP });
    for (;;) {
      const job = await mine.blPop([key("q1"), key("q2")], 10);
      truth(job, "a consumer waited in vain");
      if (job.element === "end") return;
      done.push(job.element);
    }
  });
  const jobs = range(400).map((n) => `job-${n}`);
  await Promise.all(jobs.map((job, n) => r.rPush(key(`q${1 + (n % 2)}`), job)));
  await waitFor("all jobs", () => done.length === jobs.length);
  await r.rPush(key("q1"), range(5).map(() => "end"));
  await Promise.all(consumers);
  same(done.sort(), jobs.sort(), "jobs lost or done twice");
  const began = Date.now();
  same(await r.blPop(key("nothing"), 0.4), null);
  truth(Date.now() - began >= 380 && Date.now() - began < 3000, `BLPOP with 0.4 s took ${Date.now() - began} ms`);
  const id = await r.xAdd(key("x"), "*", { f: "v" });
  same(await r.xRead({ key: key("x"), id }, { BLOCK: 50 }), null);
}));

check("client_side_caching", closing(async () => {
  const other = await connect({ RESP: 3 });
  const r = await connect({ RESP: 3, clientSideCache: { ttl: 0, maxEntries: 100, evictPolicy: "LRU" } });
  const name = key("cached");
  await other.set(name, "v");
  same(await r.get(name), "v");
  const gets = async () => Number(/cmdstat_get:calls=(\d+)/.exec(await other.info("commandstats"))?.[1] ?? 0);
  const before = await gets();
  for (const _ of range(100)) same(await r.get(name), "v");
  truth((await gets()) - before < 100, "nothing was cached");
  for (const n of range(50)) {
    await other.set(name, `v${n}`);
    await waitFor(`v${n}`, async () => (await r.get(name)) === `v${n}`, 3000);
  }
  await other.flushAll("SYNC");
  await waitFor("the flush", async () => (await r.get(name)) === null, 3000);
}));

check("scripts", closing(async () => {
  const r = await connect();
  const script = `redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1]) --${RUN}`;
  const sha = createHash("sha1").update(script).digest("hex");
  await fails(r.evalSha(sha, { keys: [key("x")], arguments: ["a"] }), /NOSCRIPT/);
  same(await r.eval(script, { keys: [key("x")], arguments: ["a"] }), "a");
  same(await r.evalSha(sha, { keys: [key("x")], arguments: ["b"] }), "b");
  same(await r.scriptLoad(script), sha);
  const { defineScript } = require("redis");
  const own = await connect({
    scripts: {
      put: defineScript({
        SCRIPT: `${script} own`,
        NUMBER_OF_KEYS: 1,
        parseCommand(parser, k, v) {
          parser.pushKey(k);
          parser.push(v);
        },
        transformReply: (reply) => reply,
      }),
    },
  });
  // The library goes back to EVAL by itself.
  same(await Promise.all(range(100).map((n) => own.put(key(`x${n}`), `${n}`))), range(100).map(String));
  await own.scriptFlush();
  same(await own.put(key("x"), "after a flush"), "after a flush");
}));

bothProtocols("users_and_databases", closing(async (RESP) => {
  const admin = await connect();
  const user = `u${RUN}${RESP}`;
  await admin.aclSetUser(user, ["on", ">p w!", "~checks:*", "&*", "+@all", "-@dangerous"]);
  try {
    const r = await connect({ RESP, username: user, password: "p w!", database: 3 });
    same(await r.aclWhoAmI(), user);
    await r.set(key("db"), "three");
    same(await admin.get(key("db")), null);
    await fails(r.set("elsewhere", "1"), /NOPERM/);
    await fails(r.flushAll(), /NOPERM/);
    const wrong = createClient(options({ RESP, username: user, password: "wrong", socket: { reconnectStrategy: false } }));
    wrong.on("error", () => {});
    await fails(wrong.connect(), /WRONGPASS/);
    const clients = await Promise.all(range(8).map((n) => connect({ RESP, username: user, password: "p w!", database: n % 4 })));
    await Promise.all(clients.map(async (c, n) => {
      for (const i of range(100)) {
        await c.set(key(`mix:${n}`), `${n}-${i}`);
        same(await c.get(key(`mix:${n}`)), `${n}-${i}`);
      }
      same((await c.clientInfo()).db, n % 4);
    }));
  } finally {
    await admin.aclDelUser(user);
  }
}));

check("names_and_ids", closing(async () => {
  const clients = await Promise.all(range(6).map((n) => connect({ name: `n${RUN}-${n}` })));
  const ids = await Promise.all(clients.map((c) => c.clientId()));
  same(new Set(ids).size, 6);
  const listed = new Map((await clients[0].clientList()).map((c) => [c.id, c.name]));
  for (const n of range(6)) {
    same(await clients[n].clientGetName(), `n${RUN}-${n}`);
    same((await clients[n].clientInfo()).id, ids[n]);
    same(listed.get(ids[n]), `n${RUN}-${n}`, "in CLIENT LIST");
  }
}));

check("large_values", closing(async () => {
  const r = await connect();
  const bytes = r.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
  const value = Buffer.alloc(24 << 20, createHash("sha256").update(RUN).digest());
  await r.set(key("large"), value);
  truth(value.equals(await bytes.get(key("large"))), "a large value came back changed");
  const small = await connect();
  await Promise.all([
    bytes.get(key("large")).then((got) => truth(value.equals(got), "changed")),
    ...range(2000).map(async (n) => same(await small.echo(`s${n}`), `s${n}`)),
    ...range(500).map(async (n) => same(await r.echo(`r${n}`), `r${n}`)),
  ]);
  await r.del(key("large"));
}));

check("a_client_that_is_killed_comes_back", closing(async () => {
  const admin = await connect();
  const r = await connect();
  const sub = await connect();
  const got = [];
  await sub.subscribe(key("news"), (m) => got.push(m));
  for (const n of range(5)) {
    const id = await r.clientId();
    same(await admin.clientKill({ filter: "ID", id }), 1);
    await waitFor("the way back", () => r.set(key("after"), String(n)).then(() => true, () => false));
    same(await r.get(key("after")), String(n));
    truth((await r.clientId()) !== id, "the same id after a kill");
  }
  await admin.clientKill({ filter: "TYPE", type: "pubsub" });
  await waitFor("the subscriber's return", async () => {
    await admin.publish(key("news"), "again");
    await sleep(50);
    return got.includes("again");
  });
}));

check("the_server_restarts_under_load", closing(async () => {
  const clients = await Promise.all(range(6).map(() => connect()));
  const counts = clients.map(() => 0);
  let stop = false;
  let wrong;
  const workers = clients.map(async (c, w) => {
    while (!stop) {
      const mark = `${w}-${counts[w]}`;
      try {
        await c.set(key(`re:${w}`), mark);
        const got = await c.get(key(`re:${w}`));
        if (got !== mark && got !== null) wrong ??= `another's reply: ${got} for ${mark}`;
        counts[w] += 1;
      } catch (e) {
        // A connection that is lost is an error of its own kind, which applications try again.
        if (e instanceof ErrorReply) wrong ??= `an answer in place of a lost connection: ${e.message}`;
        await sleep(20);
      }
    }
  });
  try {
    await waitFor("the load", () => Math.min(...counts) > 20);
    await restartServer();
    const at = [...counts];
    await waitFor("each worker's way back", () => counts.every((c, w) => c > at[w] + 50), 20_000);
  } finally {
    stop = true;
  }
  await Promise.all(workers);
  truth(!wrong, wrong);
}));

check("tls", closing(async () => {
  if (!TLS_URL) skip("no CHECKS_TLS_URL");
  const ca = process.env.CHECKS_TLS_CA && fs.readFileSync(process.env.CHECKS_TLS_CA);
  const socket = { tls: true, ca, checkServerIdentity: () => undefined };
  const r = await connect({ url: TLS_URL, socket });
  same(await Promise.all(range(1000).map((n) => r.echo(`tls-${n}`))), range(1000).map((n) => `tls-${n}`));
  const value = "x".repeat(5_000_000);
  await r.set(key("tls"), value);
  truth((await r.get(key("tls"))) === value, "changed");
  const plain = await connect();
  same(await plain.strLen(key("tls")), value.length);
  const stranger = createClient(options({ url: TLS_URL, socket: { tls: true, reconnectStrategy: false } }));
  stranger.on("error", () => {});
  await fails(stranger.connect(), /certificate|self.signed/i);
}));

await run(`node-redis ${version}`);
