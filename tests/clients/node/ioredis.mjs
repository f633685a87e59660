// What applications do with ioredis; each reply is checked against its request. See run.mjs.
import { createHash } from "node:crypto";
import fs from "node:fs";
import { RUN, TLS_URL, URL_, bothProtocols, check, fails, key, range, require, restartServer, run, same, skip, sleep,
  truth, waitFor } from "./run.mjs";

const { Redis } = require("ioredis");
const version = require("ioredis/package.json").version;

const made = [];
function connect(options = {}, url = URL_) {
  const client = new Redis(url, { retryStrategy: () => 50, maxRetriesPerRequest: null, ...options });
  client.on("error", () => {});
  made.push(client);
  return client;
}

/** A check whose clients are closed at its end, however that comes. */
const closing = (f) => async (...args) => {
  try {
    await f(...args);
  } finally {
    for (const client of made.splice(0)) client.disconnect();
  }
};

bothProtocols("many_requests_at_once", closing(async (protocol) => {
  const clients = range(8).map((n) => connect({ protocol, enableAutoPipelining: n % 2 === 0 }));
  await Promise.all(clients.map((r, w) => Promise.all(range(600).map(async (n) => {
    const mark = `${w}-${n}`;
    const name = key(`c${w}:${n % 13}:${n}`);
    same(await r.set(name, mark), "OK");
    same(await r.get(name), mark, "another's reply");
    same(await r.echo(mark), mark, "another's reply");
  }))));
}));

bothProtocols("pipelines", closing(async (protocol) => {
  const r = connect({ protocol });
  const pipe = r.pipeline();
  for (const n of range(5000)) pipe.set(key(`p${n % 50}`), n).get(key(`p${n % 50}`));
  const replies = await pipe.exec();
  same(replies.filter((_, i) => i % 2 === 1), range(5000).map((n) => [null, `${n}`]));
  const mixed = await r.pipeline().set(key("s"), "text").incr(key("s")).hset(key("h"), { a: 1 }).hgetall(key("h")).exec();
  truth(mixed[1][0]?.message.includes("not an integer"), "no error in its place");
  same(mixed[3], [null, { a: "1" }]);
  same(await r.get(key("s")), "text");
}));

bothProtocols("transactions", closing(async (protocol) => {
  const r = connect({ protocol });
  const other = connect({ protocol });
  const account = key("account");
  await r.set(account, 10);
  same(await r.multi().incr(account).get(account).exec(), [[null, 11], [null, "11"]]);
  await r.watch(account);
  await other.incr(account);
  same(await r.multi().set(account, 0).exec(), null);
  same(await r.get(account), "12");
  await r.watch(account);
  same(await r.multi().incr(account).exec(), [[null, 13]]);
  // Without pipelining each command of the transaction is sent alone.
  r.multi({ pipeline: false });
  same(await r.set(account, 20), "QUEUED");
  same(await other.get(account), "13");
  same(await r.exec(), [[null, "OK"]]);
  r.multi({ pipeline: false });
  await r.set(account, 0);
  same(await r.discard(), "OK");
  same(await r.get(account), "20");
}));

bothProtocols("publish_subscribe", closing(async (protocol) => {
  const name = (channel) => key(`${protocol}:${channel}`);
  const r = connect({ protocol });
  const sub = connect({ protocol });
  const got = [];
  sub.on("message", (channel, m) => got.push(`${channel}=${m}`));
  sub.on("pmessage", (_, channel, m) => got.push(`${channel}=${m}`));
  same(await sub.subscribe(name("a"), name("b")), 2);
  same(await sub.psubscribe(name("p*")), 3);
  const want = [];
  for (const n of range(200)) {
    const channel = name(["a", "b", "p1", "p2"][n % 4]);
    same(await r.publish(channel, `m${n}`), 1);
    want.push(`${channel}=m${n}`);
  }
  await waitFor("all messages", () => got.length === want.length);
  same(got, want, "order of messages");
  same(await sub.unsubscribe(name("a"), name("b")), 1);
  same(await sub.punsubscribe(name("p*")), 0);
  same(await sub.echo("a client again"), "a client again");
  same(await r.publish(name("a"), "nobody"), 0);
}));

bothProtocols("blocking_queues", closing(async (protocol) => {
  const r = connect({ protocol });
  const done = [];
  const consumers = range(5).map(async () => {
    const mine = connect({ protocol });
    for (;;) {
      const job = await mine.blpop(key("q1"), key("q2"), 10);
      truth(job, "a consumer waited in vain");
      if (job[1] === "end") return;
      done.push(job[1]);
    }
  });
  const jobs = range(400).map((n) => `job-${n}`);
  await Promise.all(jobs.map((job, n) => r.rpush(key(`q${1 + (n % 2)}`), job)));
  await waitFor("all jobs", () => done.length === jobs.length);
  await r.rpush(key("q1"), ...range(5).map(() => "end"));
  await Promise.all(consumers);
  same(done.sort(), jobs.sort(), "jobs lost or done twice");
  const began = Date.now();
  same(await r.blpop(key("nothing"), 0.4), null);
  truth(Date.now() - began >= 380 && Date.now() - began < 3000, `BLPOP with 0.4 s took ${Date.now() - began} ms`);
}));

check("scripts", closing(async () => {
  const lua = `redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1]) --${RUN}`;
  const r = connect({ scripts: { put: { lua, numberOfKeys: 1 } } });
  const sha = createHash("sha1").update(lua).digest("hex");
  await fails(r.evalsha(sha, 1, key("x"), "a"), /NOSCRIPT/);
  // The library goes back to EVAL by itself, in pipelines too.
  same(await r.put(key("x"), "a"), "a");
  same(await r.evalsha(sha, 1, key("x"), "b"), "b");
  await r.script("FLUSH");
  same(await r.put(key("x"), "after a flush"), "after a flush");
  await r.script("FLUSH");
  const piped = await r.pipeline().put(key("x"), "1").put(key("x"), "2").exec();
  same(piped, [[null, "1"], [null, "2"]]);
}));

bothProtocols("users_and_databases", closing(async (protocol) => {
  const admin = connect();
  const user = `u${RUN}${protocol}`;
  await admin.acl("SETUSER", user, "on", ">p w!", "~checks:*", "&*", "+@all", "-@dangerous", "+info");
  try {
    const r = connect({ protocol, username: user, password: "p w!", db: 3 });
    same(await r.acl("WHOAMI"), user);
    await r.set(key("db"), "three");
    same(await admin.get(key("db")), null);
    await fails(r.set("elsewhere", 1), /NOPERM/);
    await fails(r.flushall(), /NOPERM/);
    const wrong = connect({ protocol, username: user, password: "wrong", retryStrategy: () => null, lazyConnect: true });
    await fails(wrong.connect().then(() => wrong.ping()), /WRONGPASS|closed/);
    await r.select(5);
    same(await r.get(key("db")), null);
    const clients = range(8).map((n) => connect({ protocol, username: user, password: "p w!", db: n % 4 }));
    await Promise.all(clients.map(async (c, n) => {
      for (const i of range(100)) {
        await c.set(key(`mix:${n}`), `${n}-${i}`);
        same(await c.get(key(`mix:${n}`)), `${n}-${i}`);
      }
      truth((await c.client("INFO")).includes(` db=${n % 4} `), "in another database");
    }));
  } finally {
    await admin.acl("DELUSER", user);
  }
}));

check("monitor", closing(async () => {
  const r = connect();
  const watcher = await connect().monitor();
  made.push(watcher);
  const seen = [];
  watcher.on("monitor", (_, args) => seen.push(args.join(" ")));
  for (const n of range(20)) await r.echo(`${RUN}-${n}`);
  await waitFor("what was sent", () => range(20).every((n) => seen.some((s) => s.toLowerCase() === `echo ${RUN}-${n}`)));
}));

check("large_values", closing(async () => {
  const r = connect();
  const value = Buffer.alloc(24 << 20, createHash("sha256").update(RUN).digest());
  await r.set(key("large"), value);
  truth(value.equals(await r.getBuffer(key("large"))), "a large value came back changed");
  const small = connect();
  await Promise.all([
    r.getBuffer(key("large")).then((got) => truth(value.equals(got), "changed")),
    ...range(2000).map(async (n) => same(await small.echo(`s${n}`), `s${n}`)),
  ]);
  await r.del(key("large"));
}));

check("a_client_that_is_killed_comes_back", closing(async () => {
  const admin = connect();
  const r = connect({ connectionName: `named-${RUN}` });
  const sub = connect();
  const got = [];
  sub.on("message", (_, m) => got.push(m));
  await sub.subscribe(key("news"));
  for (const n of range(5)) {
    const id = await r.client("ID");
    same(await admin.client("KILL", "ID", id), 1);
    same(await r.set(key("after"), n), "OK");
    same(await r.get(key("after")), String(n));
    same(await r.client("GETNAME"), `named-${RUN}`);
  }
  await admin.client("KILL", "TYPE", "pubsub");
  await waitFor("the subscriber's return", async () => {
    await admin.publish(key("news"), "again");
    await sleep(50);
    return got.includes("again");
  });
}));

check("the_server_restarts_under_load", closing(async () => {
  const clients = range(6).map(() => connect());
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
        if (e.name === "ReplyError") wrong ??= `an answer in place of a lost connection: ${e.message}`;
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
  const r = connect({ tls: { ca, checkServerIdentity: () => undefined } }, TLS_URL);
  same(await Promise.all(range(1000).map((n) => r.echo(`tls-${n}`))), range(1000).map((n) => `tls-${n}`));
  const value = "x".repeat(5_000_000);
  await r.set(key("tls"), value);
  truth((await r.get(key("tls"))) === value, "changed");
  same(await connect().strlen(key("tls")), value.length);
  const stranger = connect({ retryStrategy: () => null, lazyConnect: true, tls: {} }, TLS_URL);
  await fails(stranger.connect(), /certificate|self.signed|closed/i);
}));

await run(`ioredis ${version}`);
