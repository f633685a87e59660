#!/usr/bin/env bash
# Does Redis's own test suite pass through redtape as it does directly, and is the journal taken meanwhile exact?
#
#   scripts/redis-suite.sh [MODE...]      modes: off, auto, tls (default: all that the binary knows)
#
#     off    redtape proxy --sharing off         each client has its own connection to the server
#     auto   redtape proxy --sharing auto        clients share connections
#     tls    the same, clients come through redtape's TLS listener
#
# 1. Directly: the suite against a plain server with one plain replica (redtape is one, too). Kept for each
#    version in .servers/redis-suite/baseline; what passes there must pass through redtape.
# 2. Each mode: file by file, so that one that hangs ends alone. A file with a miss is run again, since the
#    suite has tests that measure time or race with themselves; what passes late is listed.
# 3. The journal: after each file the server's keys are written down and the moment is marked; at the end
#    `redtape journal verify` must be content, and each mark and `latest` is restored and compared key by key.
#
# What may differ stands in redis-suite.exceptions (tests) with its reason. Exit code 1: a test or a key differs.
#
#   REDTAPE_BIN              the binary (default: target/release/redtape, built if missing)
#   REDTAPE_SUITE_FILES      only these files of the suite: "unit/multi unit/type/list"
#   REDTAPE_SUITE_FRESH      take the baseline anew
#   REDTAPE_KEEP             keep the folder with logs, journals and outputs, also after success
set -euo pipefail
cd "$(dirname "$0")/.."

readonly FILE_SECONDS=240   # a file of the suite ends within (the longest takes 20 s directly)
readonly SILENT_SECONDS=60  # the suite itself gives up on a test that is silent for so long
readonly TRIES=3            # the suite has tests that race with themselves, and a proxy adds some microseconds
readonly SNAPSHOT_EVERY=12  # files
readonly BASE_PORT=7260 PORT_COUNT=20

say() { printf '%s\n' "$*" >&2; }
die() { say "redis-suite: $*"; exit 1; }

scripts/install-servers.sh suite
readonly ROOT=$PWD SUITE=$PWD/.servers/redis-suite BASELINES=$PWD/.servers/redis-suite/baseline
readonly KEYS=$PWD/scripts/redis-suite.keys.tcl EXCEPTIONS=$PWD/scripts/redis-suite.exceptions
if [ -z "${REDTAPE_BIN:-}" ]; then
    REDTAPE_BIN=$ROOT/target/release/redtape
    [ -x "$REDTAPE_BIN" ] || cargo build --release --bin redtape
fi
REDTAPE_BIN=$(realpath "$REDTAPE_BIN")
[ -x "$REDTAPE_BIN" ] || die "no binary: $REDTAPE_BIN"
flags=$("$REDTAPE_BIN" proxy --help)
knows() { grep -qE -- "^ +(-., )?$1( |$)" <<<"$flags"; }

# --- what is started is ended ---------------------------------------------------------------------

work=$(mktemp -d "${TMPDIR:-/tmp}/redis-suite.XXXXXX")
declare -A child=()  # name -> pid
failed=

finish() {
    local code=$? name
    trap - EXIT INT TERM
    [ -z "${child[suite]:-}" ] || stop suite TERM || true
    for name in "${!child[@]}"; do stop "$name" || true; done
    if [ "$code" = 0 ] && [ -z "${REDTAPE_KEEP:-}" ]; then rm -rf "$work"; else say "kept: $work"; fi
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# start NAME LOG COMMAND...
start() {
    local name=$1 log=$2
    shift 2
    "$@" >>"$log" 2>&1 </dev/null &
    child[$name]=$!
}

# stop NAME [SIGNAL]: its exit code; half a minute after the signal comes SIGKILL
stop() {
    local pid=${child[$1]:-} code=0
    [ -n "$pid" ] || return 0
    unset "child[$1]"
    {
        kill "-${2:-KILL}" "$pid" || true
        until_ok 30 ended "$pid" || kill -KILL "$pid" || true
        wait "$pid" || code=$?
    } 2>/dev/null
    return "$code"
}

ended() { ! jobs -rp | grep -qx "$1"; }

free_port() {
    local port
    while port=$((12000 + RANDOM % 18000)); (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
    echo "$port"
}

# until_ok SECONDS COMMAND...
until_ok() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.1
    done
}

# The order of the stored lists does not depend on the machine's language.
sort() { LC_ALL=C command sort "$@"; }
comm() { LC_ALL=C command comm "$@"; }

cli() { redis-cli -h 127.0.0.1 -p "$@"; }
# Without a backlog that is freed early and without waiting for more replicas before a full copy.
server_flags=(--bind 127.0.0.1 --save "" --appendonly no --repl-diskless-sync-delay 0 --enable-protected-configs yes
    --enable-debug-command yes --enable-module-command yes)

# start_server NAME PORT [FLAG...]
start_server() {
    local name=$1 port=$2
    shift 2
    mkdir -p "$run/$name"
    start "$name" "$run/$name.log" redis-server --port "$port" --dir "$run/$name" "${server_flags[@]}" "$@"
    until_ok 20 cli "$port" PING || { tail -5 "$run/$name.log" >&2; die "the server '$name' does not start"; }
}

# --- one run of the suite -------------------------------------------------------------------------

# From a file's output to lines of "ok|err|hang <tab> file: test [nth]". Numbers that differ from run to run are #.
results() {
    sed -e 's/\x1b\[[0-9;]*m//g' "$2" | awk -v file="$1" -v OFS='\t' '
        function name_of(text) {
            gsub(/\t/, " ", text)
            if (text ~ /[0-9][0-9][0-9][0-9]/) gsub(/[0-9]+/, "#", text)
            return file ": " text
        }
        /^\[ok\]: /        { sub(/^\[ok\]: /, ""); sub(/ \([0-9]+ ms\)$/, ""); n = name_of($0); print "ok", n " [" ++ok[n] "]" }
        /^\[err\]: /       { sub(/^\[err\]: /, ""); sub(/ in tests\/[^ ]*\.tcl$/, ""); print "err", name_of($0) }
        /^\[exception\]: / { print "err", name_of("(exception) " substr($0, 14)) }
        / => \(IN PROGRESS\) / { sub(/.* => \(IN PROGRESS\) /, ""); print "hang", name_of($0) }'
}

# run_file FILE PORT OUT [FLAG...]: leaves OUT (as the suite prints it) and OUT.results
run_file() {
    local file=$1 port=$2 out=$3 code=0
    shift 3
    # In the background, so that a signal to this script is obeyed at once.
    start suite "$out" env -C "$SUITE" timeout -k 5 "$FILE_SECONDS" ./runtest --host 127.0.0.1 --port "$port" \
        --baseport "$BASE_PORT" --portcount "$PORT_COUNT" --tags -slow --clients 1 --durable --timeout "$SILENT_SECONDS" \
        "$@" --single "$file"
    wait "${child[suite]}" || code=$?
    unset "child[suite]"
    results "$file" "$out" >"$out.results"
    [ "$code" -lt 124 ] || printf 'hang\t%s: (the file did not end in %s s)\n' "$file" "$FILE_SECONDS" >>"$out.results"
    return "$code"
}

# The tests of a .results file that passed.
passed() { { grep -P '^ok\t' "$1" || true; } | cut -f2 | sort -u; }

# After a file that failed: the server as it was, or a new one in its place.
put_back() {
    local settings=(requirepass "" maxmemory 0 maxmemory-policy noeviction maxclients 10000 appendonly no
        client-output-buffer-limit "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60"
        timeout 0 min-replicas-to-write 0 notify-keyspace-events "" maxmemory-clients 0 proto-max-bulk-len 536870912
        client-query-buffer-limit 1073741824 repl-diskless-sync-delay 0)
    if [ "$(timeout 5 redis-cli -h 127.0.0.1 -p "$server_port" REPLICAOF NO ONE 2>&1)" = OK ] &&
        [ "$(timeout 5 redis-cli -h 127.0.0.1 -p "$server_port" CONFIG SET "${settings[@]}" 2>&1)" = OK ]; then
        timeout 5 redis-cli -h 127.0.0.1 -p "$server_port" CLIENT UNPAUSE >/dev/null || true
        timeout 5 redis-cli -h 127.0.0.1 -p "$server_port" ACL SETUSER default on nopass '~*' '&*' +@all >/dev/null || true
        return
    fi
    say "  the server does not obey any more: a new one takes its place"
    stop server || true
    start_server server "$server_port" "${tls_flags[@]}"
}

files() {
    if [ -n "${REDTAPE_SUITE_FILES:-}" ]; then tr -s ' ' '\n' <<<"$REDTAPE_SUITE_FILES"; return; fi
    (cd "$SUITE" && ./runtest --list-tests)
}

# --- directly: the baseline -----------------------------------------------------------------------

# baseline plain|tls: leaves $BASELINES/KIND-VERSION.ok and .err
baseline_file() { echo "$BASELINES/$1-$(tr -c 'a-zA-Z0-9.\n' - <"$SUITE/version")"; }
tls_flags=()
tls_server_flags=(--tls-auth-clients no --tls-cert-file "$SUITE/tests/tls/server.crt"
    --tls-key-file "$SUITE/tests/tls/server.key" --tls-ca-cert-file "$SUITE/tests/tls/ca.crt")

baseline() {
    local kind=$1 store file out flags=() port began=$SECONDS
    store=$(baseline_file "$kind")
    [ ! -e "$store.ok" ] || [ -n "${REDTAPE_SUITE_FRESH:-}" ] || return 0
    say "directly ($kind): taking the baseline"
    run=$work/baseline-$kind
    mkdir -p "$run/out" "$BASELINES"
    server_port=$(free_port)
    port=$server_port
    tls_flags=()
    if [ "$kind" = tls ]; then
        port=$(free_port)
        flags=(--tls)
        tls_flags=(--tls-port "$port" "${tls_server_flags[@]}")
    fi
    start_server server "$server_port" "${tls_flags[@]}"
    start_server replica "$(free_port)" --replicaof "127.0.0.1 $server_port"
    : >"$run/all"
    # The baseline is of the whole suite, whichever files are asked for now.
    for file in $(REDTAPE_SUITE_FILES='' files); do
        out=$run/out/${file//\//-}
        # What passes at either of two tries passes: a baseline that lacks a test does not look at it.
        if ! run_file "$file" "$port" "$out" "${flags[@]}"; then
            put_back
            cat "$out.results" >>"$run/all"
            mv "$out" "$out.try1"
            run_file "$file" "$port" "$out" "${flags[@]}" || put_back
        fi
        cat "$out.results" >>"$run/all"
    done
    stop replica || true
    stop server || true
    passed "$run/all" >"$store.ok.new"
    { grep -vP '^ok\t' "$run/all" || true; } | sort -u >"$store.err"
    mv "$store.ok.new" "$store.ok"
    say "directly ($kind): $(wc -l <"$store.ok") ok, $(wc -l <"$store.err") not, $((SECONDS - began)) s"
}

# --- through redtape ------------------------------------------------------------------------------

# In a shell of its own: a connection that was left open is not written to again, which would end this one by SIGPIPE.
ready() (
    exec 3<>"/dev/tcp/127.0.0.1/$metrics_port" && printf 'GET /journalz HTTP/1.0\r\n\r\n' >&3 && grep -q ' 200 ' <&3
) 2>/dev/null

# The server's keys to FILE, then the mark. A key whose time is over meanwhile is of no account.
take_moment() {
    local name=$1
    # A redtape that was thrown off the replication link (the suite does that) is back soon.
    until_ok 30 ready || { echo "redtape does not follow the server any more" >"$run/moments/$name.why"; return 1; }
    tclsh "$KEYS" "$SUITE" 127.0.0.1 "$server_port" >"$run/moments/$name.keys" 2>"$run/moments/$name.why" || return 1
    "$REDTAPE_BIN" journal mark --from "$run/journal" "$name" >"$run/moments/$name.why" 2>&1 || return 1
}

# compare_keys LIVE RESTORED: prints each key that differs; those whose expiry has come are left out.
compare_keys() {
    awk -F'\t' -v now="$(date +%s%3N)" '
        function over(expiry) { return expiry != -1 && expiry < now + 1000 }
        { id = "db" $1 " " $2 " " $5 }
        FILENAME == ARGV[1] { if (!over($3)) { want[id] = $3 "\t" $4; expiry[id] = $3 } ; next }
        over($3)   { next }
        !(id in want)              { print "not on the live server: " id "   expiry " $3; next }
        want[id] != $3 "\t" $4     { print "differs: " id "   live " want[id] "   restored " $3 "\t" $4 }
                                   { delete want[id] }
        END { for (id in want) if (!over(expiry[id])) print "not restored: " id "   live " want[id] }' "$1" "$2" | sort
}

# restore AT LIVE: into the scratch server; prints differences.
restore_and_compare() {
    local at=$1 live=$2
    cli "$scratch_port" FLUSHALL >/dev/null && cli "$scratch_port" FUNCTION FLUSH >/dev/null
    if ! timeout 120 "$REDTAPE_BIN" restore --from "$run/journal" --at "$at" --to "redis://127.0.0.1:$scratch_port" --yes \
        >"$run/restore.out" 2>&1 </dev/null; then
        echo "restore --at $at failed: $(tail -1 "$run/restore.out")"
        return
    fi
    tclsh "$KEYS" "$SUITE" 127.0.0.1 "$scratch_port" >"$run/restored.keys"
    compare_keys "$live" "$run/restored.keys"
}

# excused FILE: of the lines of FILE ("file: test [n]") those that the exceptions of the mode name
excused() {
    [ -s "$1" ] || return 0
    awk -v mode="$mode" 'FILENAME == ARGV[1] {
                if (match($0, /^\[[a-z,]+\] /)) {
                    if (index("," substr($0, 2, RLENGTH - 3) ",", "," mode ",") == 0) next
                    $0 = substr($0, RLENGTH + 1)
                }
                may[$0] = 1; next
            }
            { name = $0; sub(/ \[[0-9]+\]$/, "", name); if (name in may) print }' "$run/exceptions" "$1"
}

table=$work/table
printf '%s\n' "mode|tests ok|of|missing|excused|late|moments|differences|excused|seconds" >"$table"

# run_mode MODE BASELINE FLAG...: redtape's own flags follow
run_mode() {
    local differing_excused mode=$1 kind=$2 file out tries ran=0 began=$SECONDS suite_flags=() port ok moments=0 differing code=0
    shift 2
    run=$work/$mode
    mkdir -p "$run/out" "$run/moments"
    say "$mode: redtape proxy $*"
    server_port=$(free_port) listen_port=$(free_port) metrics_port=$(free_port) scratch_port=$(free_port)
    port=$listen_port
    tls_flags=()
    start_server server "$server_port"
    local tls_listen=()
    if [ "$kind" = tls ]; then
        port=$(free_port)
        suite_flags=(--tls)
        tls_listen=(--tls-listen "127.0.0.1:$port" "${tls_server_flags[@]}")
    fi
    start redtape "$run/redtape.log" "$REDTAPE_BIN" proxy --listen "127.0.0.1:$listen_port" \
        --upstream "redis://127.0.0.1:$server_port" --dir "$run/journal" --metrics "127.0.0.1:$metrics_port" "${tls_listen[@]}" "$@"
    if ! until_ok 30 ready; then
        tail -5 "$run/redtape.log" >&2
        say "$mode: redtape does not start"
        echo "$mode|does not start||||||||" >>"$table"
        failed=yes
        stop redtape || true
        stop server || true
        return
    fi

    { grep -vE '^(#|$)' "$EXCEPTIONS" || true; } | sed -E 's/ +# .*$//' >"$run/exceptions"
    local want=$run/want missing=$run/missing late=$run/late
    : >"$run/all"; : >"$missing"; : >"$late"; : >"$want"; : >"$run/differences"; : >"$run/differences.excused"
    for file in $(files); do
        printf '%s: * [1]\n' "$file" >"$run/file.whole"
        [ -z "$(excused "$run/file.whole")" ] || continue
        # Later moments start from a later full copy: that is faster, and proves the copies, too.
        ran=$((ran + 1))
        if [ $((ran % SNAPSHOT_EVERY)) = 0 ]; then
            "$REDTAPE_BIN" snapshot create --dir "$run/journal" --upstream "redis://127.0.0.1:$server_port" >"$run/snapshot.out" 2>&1 ||
                echo "snapshot before $file: $(tail -1 "$run/snapshot.out")" >>"$run/differences"
        fi
        out=$run/out/${file//\//-}
        awk -v prefix="$file: " 'index($0, prefix) == 1' "$(baseline_file "$kind").ok" >"$run/file.want"
        cat "$run/file.want" >>"$want"
        run_file "$file" "$port" "$out" "${suite_flags[@]}" || put_back
        passed "$out.results" >"$run/file.got"
        comm -23 "$run/file.want" "$run/file.got" >"$run/file.missing"
        # What another try passes is told, and does not count.
        tries=1
        while [ "$tries" -lt "$TRIES" ] && [ -n "$(comm -23 "$run/file.missing" <(excused "$run/file.missing" | sort))" ]; do
            tries=$((tries + 1))
            mv "$out" "$out.try$((tries - 1))"
            run_file "$file" "$port" "$out" "${suite_flags[@]}" || put_back
            passed "$out.results" >"$run/file.got"
            comm -12 "$run/file.missing" "$run/file.got" | sed "s/\$/   (try $tries)/" >>"$late"
            comm -23 "$run/file.missing" "$run/file.got" >"$run/file.left"
            mv "$run/file.left" "$run/file.missing"
        done
        cat "$run/file.missing" >>"$missing"
        cat "$out.results" >>"$run/all"
        if ended "${child[redtape]}"; then
            tail -20 "$run/redtape.log" >&2
            echo "redtape ended by itself during $file; the files after it did not run" >>"$run/differences"
            break
        fi
        if take_moment "${file//\//-}"; then moments=$((moments + 1)); else
            echo "after $file: $(tail -1 "$run/moments/${file//\//-}.why")" >>"$run/differences"
        fi
    done

    # The end: everything journaled, redtape ended in order, the journal sound, its last moment that of the server.
    take_moment end || echo "at the end: $(tail -1 "$run/moments/end.why")" >>"$run/differences"
    stop redtape TERM || code=$?
    [ "$code" = 0 ] || echo "redtape ended with exit code $code on SIGTERM" >>"$run/differences"
    grep -n 'panicked' "$run/redtape.log" | sed 's/^/redtape.log:/' >>"$run/differences" || true
    timeout 120 "$REDTAPE_BIN" journal verify --from "$run/journal" >"$run/verify.out" 2>&1 ||
        echo "journal verify: $(tail -1 "$run/verify.out")" >>"$run/differences"
    tclsh "$KEYS" "$SUITE" 127.0.0.1 "$server_port" >"$run/moments/latest.keys"
    start_server scratch "$scratch_port"
    restore_and_compare latest "$run/moments/latest.keys" | sed 's/^/latest: /' >>"$run/differences"
    local keys name
    for keys in "$run"/moments/*.keys; do
        name=$(basename "$keys" .keys)
        # A moment without a mark was reported when it was taken.
        if grep -qs '^mark:' "$run/moments/$name.why"; then
            restore_and_compare "mark:$name" "$keys" | sed "s|^|mark:$name: |" >>"$run/differences"
        fi
    done
    stop scratch || true
    stop server || true

    # The verdict.
    sort -u -o "$missing" "$missing"
    excused "$missing" | sort >"$run/excused"
    comm -23 "$missing" "$run/excused" >"$run/new"
    ok=$(($(wc -l <"$want") - $(wc -l <"$missing")))
    # Lines "journal: mark:NAME: KEY" and "journal: KEY" of the exceptions name keys that may differ.
    sed -n 's/^journal: //p' "$run/exceptions" >"$run/keys.excused"
    if [ -s "$run/keys.excused" ]; then
        grep -F -f "$run/keys.excused" "$run/differences" >"$run/differences.excused" || true
        grep -vF -f "$run/keys.excused" "$run/differences" >"$run/differences.left" || true
        mv "$run/differences.left" "$run/differences"
    fi
    differing=$(wc -l <"$run/differences")
    differing_excused=$(wc -l <"$run/differences.excused")
    echo "$mode|$ok|$(wc -l <"$want")|$(wc -l <"$run/new")|$(wc -l <"$run/excused")|$(wc -l <"$late")|$moments|$differing|$differing_excused|$((SECONDS - began))" >>"$table"
    if [ -s "$run/new" ]; then
        failed=yes
        say "$mode: pass directly and not through redtape:"
        while IFS= read -r name; do explain "$name"; done <"$run/new"
    fi
    if [ -s "$late" ]; then
        say "$mode: did not pass at the first try:"
        head -20 "$late" | sed 's/^/  /' >&2
        [ "$(wc -l <"$late")" -le 20 ] || say "  ... $(wc -l <"$late") in all: $late"
    fi
    if [ -s "$run/differences" ]; then
        failed=yes
        say "$mode: the journal:"
        head -40 "$run/differences" | cut -c1-400 | sed 's/^/  /' >&2
    fi
}

# explain "file: test [n]": what the suite said
explain() {
    local file=${1%%: *} name out
    name=${1#*: }
    name=${name% \[*}
    out=$run/out/${file//\//-}
    say "  $1"
    if grep -qF "hang"$'\t'"$file: " "$out.results"; then
        say "      hung: $(grep -P '^hang\t' "$out.results" | cut -f2 | paste -sd';')"
    fi
    sed -e 's/\x1b\[[0-9;]*m//g' "$out" | grep -F -A 4 -m 1 "[err]: $name" | tail -n +2 | head -4 | cut -c1-300 | sed 's/^/      /' >&2 || true
}

# --- all of it ------------------------------------------------------------------------------------

modes=("$@")
[ ${#modes[@]} -gt 0 ] || modes=(off auto tls)
baseline plain
for mode in "${modes[@]}"; do
    case $mode in
        off)
            if knows --sharing; then run_mode off plain --sharing off
            else say "off: this redtape does not know --sharing; run without it"; run_mode off plain; fi ;;
        auto)
            if knows --sharing; then run_mode auto plain --sharing auto
            else
                say "auto: skipped, this redtape does not know --sharing"
                echo "auto|skipped: no --sharing||||||||" >>"$table"
            fi ;;
        tls)
            if knows --tls-listen; then
                baseline tls
                if knows --sharing; then run_mode tls tls --sharing auto; else run_mode tls tls; fi
            else
                say "tls: skipped, this redtape does not know --tls-listen"
                echo "tls|skipped: no --tls-listen||||||||" >>"$table"
            fi ;;
        *) die "unknown mode '$mode' (off, auto, tls)" ;;
    esac
done

echo
column -t -s '|' "$table"
[ -z "$failed" ] || { say "redis-suite: FAILED"; exit 1; }
echo "redis-suite: all that passes directly passes through redtape"
