"""What applications do with redis-py, sync and asyncio; each reply is checked against its request.

    CHECKS_URL=redis://127.0.0.1:6400 python checks.py [PART OF A NAME...]

Prints one line for each check, ends with 1 if any failed.

CHECKS_URL      where to connect: a server, or redtape before it
CHECKS_TLS_URL  the same by TLS (rediss://); checks of TLS are skipped without it
CHECKS_TLS_CA   the authority that signed the certificate there
CHECKS_DRIVER   if set, the server is restarted by whoever reads the line "driver: restart" and answers
                with one on stdin; without it, checks that need a restart are skipped
"""

import asyncio
import faulthandler
import functools
import hashlib
import inspect
import os
import ssl
import sys
import threading
import time
import traceback
import uuid
from concurrent.futures import ThreadPoolExecutor

import redis
import redis.asyncio as aioredis
from redis.backoff import ConstantBackoff
from redis.asyncio.retry import Retry as AsyncRetry
from redis.cache import CacheConfig
from redis.exceptions import AuthenticationError, ConnectionError, NoScriptError, ResponseError, TimeoutError, WatchError
from redis.retry import Retry

URL = os.environ["CHECKS_URL"]
TLS_URL = os.environ.get("CHECKS_TLS_URL")
RUN = uuid.uuid4().hex[:8]
RETRIED = [ConnectionError, TimeoutError, ConnectionResetError]

checks = []


class Skip(Exception):
    """The surroundings do not have what the check needs."""


def check(f):
    checks.append(f)
    return f


def key(name):
    return f"checks:{RUN}:{name}"


def connect(url=URL, **options):
    options.setdefault("decode_responses", True)
    options.setdefault("socket_timeout", 20)
    return redis.Redis.from_url(url, **options)


def connect_async(url=URL, **options):
    options.setdefault("decode_responses", True)
    options.setdefault("socket_timeout", 20)
    return aioredis.Redis.from_url(url, **options)


def both_protocols(f):
    for protocol in (2, 3):
        made = functools.partial(f, protocol)
        made.__name__ = f"{f.__name__}_resp{protocol}"
        checks.append(made)
    return f


def same(got, want, what=""):
    assert got == want, f"{what}: got {got!r:.200}, want {want!r:.200}"


def wait_for(what, ask, limit=10):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if ask():
            return
        time.sleep(0.01)
    raise AssertionError(f"waited {limit} s in vain for {what}")


def restart_server():
    if not os.environ.get("CHECKS_DRIVER"):
        raise Skip("nobody restarts the server")
    print("driver: restart", flush=True)
    assert sys.stdin.readline(), "the driver went away"


# --- sync -----------------------------------------------------------------------------------------


@both_protocols
def pool_under_threads(protocol):
    pool = redis.BlockingConnectionPool.from_url(URL, max_connections=6, decode_responses=True, protocol=protocol)
    r = redis.Redis(connection_pool=pool)

    def worker(w):
        for n in range(150):
            mark = f"{w}-{n}"
            same(r.set(key(f"pool:{w}"), mark), True)
            same(r.get(key(f"pool:{w}")), mark, "another's reply")
            same(r.echo(mark), mark, "another's reply")
            same(r.incr(key(f"pool:n:{w}")), n + 1)
            if n % 25 == 0:
                same(r.eval("return {KEYS[1], ARGV[1]}", 1, key("x"), mark), [key("x"), mark])

    with ThreadPoolExecutor(20) as threads:
        list(threads.map(worker, range(20)))
    same(r.mget([key(f"pool:n:{w}") for w in range(20)]), ["150"] * 20)
    r.delete(*[key(f"pool:n:{w}") for w in range(20)])
    pool.disconnect()


@both_protocols
def pipelines(protocol):
    r = connect(protocol=protocol)
    with r.pipeline(transaction=False) as pipe:
        for n in range(10_000):
            pipe.set(key(f"pipe:{n % 50}"), n)
            pipe.get(key(f"pipe:{n % 50}"))
        replies = pipe.execute()
    same(replies[1::2], [str(n) for n in range(10_000)])
    with r.pipeline(transaction=False) as pipe:
        pipe.set(key("s"), "text").incr(key("s")).hset(key("h"), mapping={"a": 1, "b": 2}).hgetall(key("h"))
        replies = pipe.execute(raise_on_error=False)
    assert isinstance(replies[1], ResponseError), replies
    same(replies[3], {"a": "1", "b": "2"})
    # A connection that had an error in its pipeline goes on as if nothing had been.
    same(r.get(key("s")), "text")


@both_protocols
def publish_subscribe(protocol):
    r = connect(protocol=protocol)
    sub = r.pubsub()
    channels = [key(f"ch:{n}") for n in range(5)]
    sub.subscribe(*channels)
    sub.psubscribe(key("p:*"))
    for _ in range(6):
        assert sub.get_message(timeout=5)["type"] in ("subscribe", "psubscribe")
    want = []
    for n in range(200):
        same(r.publish(channels[n % 5], f"m{n}"), 1)
        want.append(("message", channels[n % 5], f"m{n}"))
    same(r.publish(key("p:x"), "by pattern"), 1)
    want.append(("pmessage", key("p:x"), "by pattern"))
    got = []
    while len(got) < len(want):
        message = sub.get_message(timeout=5)
        assert message, f"only {len(got)} messages of {len(want)}"
        got.append((message["type"], message["channel"], message["data"]))
    same(got, want, "order of messages")
    # In RESP3 the library itself loses its way at the reply of a subscriber's PING.
    if protocol == 2:
        sub.ping()
        same(sub.get_message(timeout=5)["type"], "pong")
    sub.unsubscribe()
    sub.punsubscribe()
    for _ in range(6):
        assert sub.get_message(timeout=5)["type"] in ("unsubscribe", "punsubscribe")
    same(r.publish(channels[0], "nobody"), 0)
    sub.close()


@check
def sharded_publish_subscribe():
    r = connect(protocol=3)
    sub = r.pubsub()
    sub.ssubscribe(key("shard"))
    same(sub.get_message(timeout=5)["type"], "ssubscribe")
    same(r.execute_command("SPUBLISH", key("shard"), "hello"), 1)
    message = sub.get_sharded_message(timeout=5) if hasattr(sub, "get_sharded_message") else sub.get_message(timeout=5)
    same(message["data"], "hello")
    sub.close()


@both_protocols
def transactions(protocol):
    r = connect(protocol=protocol)
    account = key("account")
    r.set(account, 10)
    with r.pipeline() as pipe:
        pipe.watch(account)
        value = int(pipe.get(account))
        pipe.multi()
        pipe.set(account, value + 1)
        pipe.get(account)
        same(pipe.execute(), [True, "11"])
        # Another writes between WATCH and EXEC.
        pipe.watch(account)
        r.incr(account)
        pipe.multi()
        pipe.set(account, 0)
        try:
            pipe.execute()
            raise AssertionError("EXEC despite a conflict")
        except WatchError:
            pass
        # UNWATCH forgets.
        pipe.watch(account)
        r.incr(account)
        pipe.unwatch()
        pipe.multi()
        pipe.incr(account)
        same(pipe.execute(), [14])
    same(r.get(account), "14")
    # Optimistic counting by many: none is lost.
    r.set(account, 0)

    def add(pipe):
        value = int(pipe.get(account))
        pipe.multi()
        pipe.set(account, value + 1)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda _: [r.transaction(add, account) for _ in range(20)], range(6)))
    same(r.get(account), "120")


@check
def a_transaction_with_a_wrong_command_is_discarded():
    r = connect()
    with r.pipeline() as pipe:
        pipe.set(key("d"), 1)
        pipe.execute_command("GET")
        try:
            pipe.execute()
            raise AssertionError("EXEC despite an error")
        except ResponseError as e:
            assert "wrong number of arguments" in str(e) or "EXECABORT" in str(e), e
    same(r.exists(key("d")), 0)


@both_protocols
def blocking_queues(protocol):
    r = connect(protocol=protocol)
    queues = [key("q1"), key("q2")]
    jobs = [f"job-{n}" for n in range(400)]
    done, lock = [], threading.Lock()

    def consume():
        mine = connect(protocol=protocol)
        while True:
            reply = mine.blpop(queues, timeout=10)
            assert reply, "a consumer waited in vain"
            if reply[1] == "end":
                return
            with lock:
                done.append(reply[1])

    def produce(p):
        for job in jobs[p::2]:
            r.rpush(queues[p], job)

    with ThreadPoolExecutor(8) as threads:
        consumers = [threads.submit(consume) for _ in range(5)]
        for p in [threads.submit(produce, p) for p in range(2)]:
            p.result()
        wait_for("all jobs", lambda: len(done) == len(jobs), 15)
        for _ in consumers:
            r.rpush(queues[0], "end")
        for c in consumers:
            c.result()
    same(sorted(done), sorted(jobs), "jobs lost or done twice")
    began = time.monotonic()
    same(r.blpop(key("nothing"), timeout=0.5), None)
    waited = time.monotonic() - began
    assert 0.45 < waited < 3, f"BLPOP with 0.5 s took {waited:.2f} s"
    same(r.ping(), True)
    r.rpush(key("from"), "x")
    same(r.blmove(key("from"), key("to"), 1, "LEFT", "RIGHT"), "x")
    same(r.blmove(key("from"), key("to"), 0.1, "LEFT", "RIGHT"), None)
    last = r.xadd(key("stream"), {"f": "v"})
    same(r.xread({key("stream"): last}, block=100) or None, None)


@check
def client_side_caching():
    other = connect()
    server = other.info("server")
    version = tuple(map(int, server["redis_version"].split(".")))
    if version < (7, 4):
        raise Skip(f"redis-py wants Redis 7.4 for this, here is {server['redis_version']}")
    r = connect(protocol=3, cache_config=CacheConfig(max_size=1000))
    name = key("cached")
    other.set(name, "one")
    same(r.get(name), "one")
    assert any("GET" in str(k) for k in r.get_cache().collection), "nothing was cached"
    for n in range(50):
        other.set(name, f"v{n}")
        # The invalidation comes by itself, a moment after the write.
        wait_for(f"v{n}", lambda n=n: r.get(name) == f"v{n}", 3)
    before = int(other.info("commandstats").get("cmdstat_get", {}).get("calls", 0))
    for _ in range(100):
        same(r.get(name), "v49")
    after = int(other.info("commandstats").get("cmdstat_get", {}).get("calls", 0))
    assert after - before < 100, f"{after - before} GETs reached the server, though cached"
    other.delete(name)
    wait_for("the deletion", lambda: r.get(name) is None, 3)
    r.close()


@check
def tracking_with_a_redirect():
    writer = connect()
    # The connection that hears of changes is made by hand: its id must be known before it subscribes.
    settings = writer.connection_pool.connection_kwargs
    hears = redis.Connection(host=settings.get("host", "127.0.0.1"), port=settings.get("port", 6379), protocol=2)
    hears.connect()

    def ask(*command):
        hears.send_command(*command)
        return hears.read_response()

    target = ask("CLIENT", "ID")
    same(ask("SUBSCRIBE", "__redis__:invalidate"), [b"subscribe", b"__redis__:invalidate", 1])
    reader = connect(single_connection_client=True)
    same(reader.execute_command("CLIENT", "TRACKING", "ON", "REDIRECT", target) in (True, "OK"), True)
    for n in range(5):
        reader.get(key("t"))
        writer.set(key("t"), n)
        assert hears.can_read(timeout=5), "no invalidation came"
        same(hears.read_response(), [b"message", b"__redis__:invalidate", [key("t").encode()]])
    reader.execute_command("CLIENT", "TRACKING", "OFF")
    hears.disconnect()
    reader.close()


@check
def scripts():
    r = connect()
    script = r.register_script(f"redis.call('SET', KEYS[1], ARGV[1]); return redis.call('GET', KEYS[1]) --{RUN}")
    sha = hashlib.sha1(script.script if isinstance(script.script, bytes) else script.script.encode()).hexdigest()
    same(r.script_exists(sha), [False])
    try:
        r.evalsha(sha, 1, key("x"), 1)
        raise AssertionError("EVALSHA of an unknown script")
    except NoScriptError:
        pass
    # The library loads it by itself.
    same(script(keys=[key("x")], args=["a"]), "a")
    same(r.script_exists(sha), [True])
    with r.pipeline(transaction=False) as pipe:
        for n in range(200):
            script(keys=[key("x")], args=[n], client=pipe)
        same(pipe.execute(), [str(n) for n in range(200)])
    r.script_flush()
    with r.pipeline() as pipe:
        script(keys=[key("x")], args=["in a transaction"], client=pipe)
        same(pipe.execute(), ["in a transaction"])
    library = f"lib{RUN}"
    r.function_load(f"#!lua name={library}\nredis.register_function('f{RUN}', function(k, a) return a[1] end)")
    same(r.fcall(f"f{RUN}", 0, "via a function"), "via a function")
    r.function_delete(library)


@both_protocols
def users_and_databases(protocol):
    admin = connect()
    user = f"u{RUN}{protocol}"
    admin.acl_setuser(user, enabled=True, passwords=["+p w!"], keys=["checks:*"], channels=["*"],
                      categories=["+@all", "-@dangerous"])
    try:
        r = connect(username=user, password="p w!", db=3, protocol=protocol)
        same(r.acl_whoami(), user)
        same(r.client_info()["db"], 3)
        r.set(key("db"), "three")
        same(admin.get(key("db")), None)
        same(connect(db=3).get(key("db")), "three")
        for command in (["SET", "elsewhere", "1"], ["FLUSHALL"]):
            try:
                r.execute_command(*command)
                raise AssertionError(f"{command} was let through")
            except ResponseError as e:
                assert "permission" in str(e).lower(), e
        try:
            connect(username=user, password="wrong", protocol=protocol).ping()
            raise AssertionError("a wrong password was let in")
        except AuthenticationError:
            pass
        # Different users and databases at once do not mix.
        clients = [connect(username=user, password="p w!", db=n % 4, protocol=protocol) for n in range(8)]

        def use(n):
            for i in range(100):
                clients[n].set(key(f"mix:{n}"), f"{n}-{i}")
                same(clients[n].get(key(f"mix:{n}")), f"{n}-{i}")
                same(clients[n].get(key(f"mix:{n + 100}")), None)
            same(clients[n].client_info()["db"], n % 4)

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(use, range(8)))
        for n in range(8):
            same(connect(db=n % 4).get(key(f"mix:{n}")), f"{n}-99")
    finally:
        admin.acl_deluser(user)


@check
def names_and_ids():
    clients = [connect(client_name=f"n{RUN}-{n}", single_connection_client=True) for n in range(6)]
    ids = [c.client_id() for c in clients]
    same(len(set(ids)), 6, "ids of different clients")
    for n, c in enumerate(clients):
        same(c.client_getname(), f"n{RUN}-{n}")
        info = c.client_info()
        same((info["name"], int(info["id"])), (f"n{RUN}-{n}", ids[n]))
    listed = {int(c["id"]): c["name"] for c in clients[0].client_list()}
    for n, i in enumerate(ids):
        same(listed.get(i), f"n{RUN}-{n}", "in CLIENT LIST")
    same([int(c["id"]) for c in clients[0].client_list(client_id=ids[1:3])], ids[1:3])
    # UNBLOCK by id.
    with ThreadPoolExecutor(1) as thread:
        blocked = thread.submit(lambda: clients[1].blpop(key("never"), timeout=10))
        wait_for("the blocked client", lambda: clients[0].client_unblock(ids[1]), 5)
        same(blocked.result(), None)
    for c in clients:
        c.close()


@check
def large_values():
    r = connect(decode_responses=False, socket_timeout=60)
    value = hashlib.sha256(RUN.encode()).digest() * (1 << 20)  # 32 MiB
    r.set(key("large"), value)
    assert r.get(key("large")) == value, "a large value came back changed"
    same(r.strlen(key("large")), len(value))
    parts = [bytes([n]) * 1_000_003 for n in range(24)]
    with r.pipeline(transaction=False) as pipe:
        for n, part in enumerate(parts):
            pipe.set(key(f"part:{n}"), part)
            pipe.get(key(f"part:{n}"))
        replies = pipe.execute()
    assert replies[1::2] == parts, "a pipeline of large values came back changed"
    r.hset(key("wide"), mapping={f"f{n}": f"v{n}" for n in range(50_000)})
    same(len(r.hgetall(key("wide"))), 50_000)
    # Large values of one client do not mix with small ones of others.
    small = connect()

    def download(_):
        assert r.get(key("large")) == value

    def ask(w):
        for n in range(200):
            same(small.echo(f"{w}:{n}"), f"{w}:{n}")

    with ThreadPoolExecutor(6) as threads:
        for f in [threads.submit(download, 0), threads.submit(download, 1), *[threads.submit(ask, w) for w in range(4)]]:
            f.result()
    r.delete(key("large"), key("wide"), *[key(f"part:{n}") for n in range(24)])


@check
def a_client_that_is_killed_comes_back():
    admin = connect()
    r = connect(retry=Retry(ConstantBackoff(0.05), 5), retry_on_error=RETRIED, single_connection_client=True)
    for n in range(5):
        victim = r.client_id()
        same(admin.client_kill_filter(_id=victim), 1)
        same(r.set(key("after"), n), True)
        assert r.client_id() != victim, "the same id after a kill"
        same(r.get(key("after")), str(n))
    # A subscriber subscribes again.
    sub = connect(retry=Retry(ConstantBackoff(0.05), 5), retry_on_error=RETRIED).pubsub()
    sub.subscribe(key("news"))
    same(sub.get_message(timeout=5)["type"], "subscribe")
    admin.client_kill_filter(_type="pubsub")

    def hears():
        admin.publish(key("news"), "again")
        try:
            message = sub.get_message(timeout=0.2)
        except tuple(RETRIED):
            return False
        return bool(message) and message["type"] == "message"

    wait_for("the subscriber's return", hears, 10)
    sub.close()


@check
def the_server_restarts_under_load():
    r = connect(retry=Retry(ConstantBackoff(0.1), 100), retry_on_error=RETRIED)
    stop, counts = threading.Event(), [0] * 6

    def worker(w):
        while not stop.is_set():
            mark = f"{w}-{counts[w]}"
            r.set(key(f"re:{w}"), mark)
            got = r.get(key(f"re:{w}"))
            # The server came back empty between SET and GET, or the reply is its own.
            assert got in (mark, None), f"another's reply: {got} for {mark}"
            counts[w] += 1

    with ThreadPoolExecutor(6) as threads:
        workers = [threads.submit(worker, w) for w in range(6)]
        # A worker that ends has met an error that the library does not try again.
        ended = lambda: any(w.done() for w in workers)
        try:
            wait_for("the load", lambda: ended() or min(counts) > 20)
            restart_server()
            at = list(counts)
            wait_for("each worker's way back", lambda: ended() or all(c > a + 50 for c, a in zip(counts, at)), 20)
        finally:
            stop.set()
        for w in workers:
            w.result()


@check
def tls():
    if not TLS_URL:
        raise Skip("no CHECKS_TLS_URL")
    r = connect(TLS_URL, ssl_ca_certs=os.environ.get("CHECKS_TLS_CA"), ssl_cert_reqs="required",
                ssl_check_hostname=False, protocol=3)
    with r.pipeline(transaction=False) as pipe:
        for n in range(1000):
            pipe.echo(f"tls-{n}")
        same(pipe.execute(), [f"tls-{n}" for n in range(1000)])
    value = "x" * 5_000_000
    r.set(key("tls"), value)
    assert r.get(key("tls")) == value
    same(connect().strlen(key("tls")), len(value))
    if os.environ.get("CHECKS_TLS_CA"):
        stranger = connect(TLS_URL, ssl_cert_reqs=ssl.CERT_REQUIRED, ssl_ca_data=None, ssl_check_hostname=False)
        try:
            stranger.ping()
            raise AssertionError("a certificate of an unknown authority was trusted")
        except ConnectionError:
            pass


# --- asyncio --------------------------------------------------------------------------------------


@both_protocols
async def async_concurrency(protocol):
    pool = aioredis.BlockingConnectionPool.from_url(URL, max_connections=8, decode_responses=True, protocol=protocol)
    r = aioredis.Redis(connection_pool=pool)

    async def worker(w):
        for n in range(60):
            mark = f"{w}-{n}"
            await r.set(key(f"a:{w}"), mark)
            same(await r.get(key(f"a:{w}")), mark)
            same(await r.echo(mark), mark)
            async with r.pipeline(transaction=n % 2 == 0) as pipe:
                same(await pipe.incr(key(f"an:{w}")).echo(mark).execute(), [n + 1, mark])

    await asyncio.gather(*[worker(w) for w in range(50)])
    await r.delete(*[key(f"an:{w}") for w in range(50)])
    await pool.disconnect()


@check
async def async_cancelled_requests_leave_no_replies_behind():
    r = connect_async()
    for n in range(30):
        try:
            await asyncio.wait_for(r.blpop(key("never"), timeout=5), 0.02)
        except (asyncio.TimeoutError, TimeoutError):
            pass
        same(await r.echo(f"after-{n}"), f"after-{n}")
    await r.aclose()


@both_protocols
async def async_publish_subscribe(protocol):
    r = connect_async(protocol=protocol)
    got = []

    async def listen(n, ready):
        async with r.pubsub() as sub:
            await sub.subscribe(key(f"ac:{n}"))
            async for message in sub.listen():
                if message["type"] == "subscribe":
                    ready.set_result(None)
                elif message["data"] == "end":
                    return
                else:
                    got.append((n, message["data"]))

    readies = [asyncio.get_running_loop().create_future() for _ in range(10)]
    listeners = [asyncio.create_task(listen(n, ready)) for n, ready in enumerate(readies)]
    await asyncio.wait_for(asyncio.gather(*readies), 5)
    for m in range(20):
        for n in range(10):
            same(await r.publish(key(f"ac:{n}"), f"{n}-{m}"), 1)
    for n in range(10):
        await r.publish(key(f"ac:{n}"), "end")
    await asyncio.wait_for(asyncio.gather(*listeners), 10)
    same(sorted(got), sorted((n, f"{n}-{m}") for n in range(10) for m in range(20)))
    await r.aclose()


@check
async def async_transactions():
    r = connect_async()
    await r.set(key("at"), 0)

    async def add(pipe):
        value = int(await pipe.get(key("at")))
        pipe.multi()
        pipe.set(key("at"), value + 1)

    async def worker():
        for _ in range(20):
            await r.transaction(add, key("at"))

    await asyncio.gather(*[worker() for _ in range(6)])
    same(await r.get(key("at")), "120")
    await r.aclose()


@check
async def async_blocking_queues():
    r = connect_async()
    done = []

    async def consume():
        while (reply := await r.blpop([key("aq")], timeout=10))[1] != "end":
            done.append(reply[1])

    consumers = [asyncio.create_task(consume()) for _ in range(8)]
    for n in range(300):
        await r.rpush(key("aq"), f"job-{n}")
    for _ in consumers:
        await r.rpush(key("aq"), "end")
    await asyncio.wait_for(asyncio.gather(*consumers), 20)
    same(sorted(done), sorted(f"job-{n}" for n in range(300)))
    began = time.monotonic()
    same(await r.blpop([key("an")], timeout=0.3), None)
    assert 0.25 < time.monotonic() - began < 3
    await r.aclose()


@check
async def async_a_client_that_is_killed_comes_back():
    admin = connect_async()
    r = connect_async(retry=AsyncRetry(ConstantBackoff(0.05), 5), retry_on_error=RETRIED, single_connection_client=True)
    for n in range(5):
        same(await admin.client_kill_filter(_id=await r.client_id()), 1)
        same(await r.set(key("aafter"), n), True)
        same(await r.get(key("aafter")), str(n))
    await r.aclose()
    await admin.aclose()


# --- the run --------------------------------------------------------------------------------------


def main():
    wanted = sys.argv[1:]
    failed = 0
    for f in checks:
        if wanted and not any(part in f.__name__ for part in wanted):
            continue
        began = time.monotonic()
        # A check that hangs says where, and ends the run.
        faulthandler.dump_traceback_later(120, exit=True)
        try:
            inner = f.func if isinstance(f, functools.partial) else f
            if inspect.iscoroutinefunction(inner):
                asyncio.run(asyncio.wait_for(f(), 90))
            else:
                f()
            print(f"ok    {f.__name__} ({time.monotonic() - began:.2f} s)", flush=True)
        except Skip as why:
            print(f"skip  {f.__name__}: {why}", flush=True)
        except Exception as e:  # noqa: BLE001: whatever it is, it is the result
            failed += 1
            text = str(e).replace("\n", " ")
            print(f"FAIL  {f.__name__}: {type(e).__name__}: {text:.300}", flush=True)
            traceback.print_exc()
    print(f"redis-py {redis.__version__}: {failed} failed", flush=True)
    sys.exit(1 if failed else 0)


main()
