#!/usr/bin/env bash
# Makes the servers and tools that the tests and the demo run against available.
#
#   scripts/install-servers.sh        redis-server, redis-cli and promtool from the machine's own packages
#   scripts/install-servers.sh all    besides, .servers/<name>/ for every server that `make compat` runs against
#   scripts/install-servers.sh suite  besides, .servers/redis-suite/: Redis's own Tcl tests, of the server's very version
#   scripts/install-servers.sh clients   besides, .servers/clients/: redis-py, node-redis and ioredis, current releases
#   scripts/install-servers.sh bench  besides, the proxies that `make bench` runs beside redtape
#
# Does nothing, and needs no rights, where everything is already there. Leaves no service running.
# The servers of `all` are unpacked, not installed: each folder holds the server with its suite's own
# C library, started by a wrapper that can be used as a plain binary. The machine's package lists and
# sources are not touched: a private apt folder is used, whose mirror and keys are copied from the
# machine's own sources.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }
die() { say "install-servers: $*"; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null; then sudo -n "$@"
    else die "root rights are needed for: $*   (run it yourself, or install sudo)"
    fi
}

# --- the machine's own packages -------------------------------------------------------------------

# Debian starts a service as soon as it is installed, unless /usr/sbin/policy-rc.d says no.
guard=/usr/sbin/policy-rc.d
guard_made=
forbid_service_start() {
    [ -e "$guard" ] && return
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$guard" >/dev/null
    as_root chmod 755 "$guard"
    guard_made=yes
}
allow_service_start() { [ -z "$guard_made" ] || as_root rm -f "$guard"; guard_made=; }
trap allow_service_start EXIT

# install_missing PACKAGE...
install_missing() {
    [ $# -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "please install by your own package manager: $*"
    say "installing $*"
    forbid_service_start
    local apt=(apt-get -y -q --no-install-recommends -o Dpkg::Use-Pty=0)
    as_root env DEBIAN_FRONTEND=noninteractive "${apt[@]}" install "$@" >/dev/null 2>&1 || {
        as_root apt-get -q update >/dev/null || say "apt-get update had errors; trying with what there is"
        as_root env DEBIAN_FRONTEND=noninteractive "${apt[@]}" install "$@" >/dev/null
    }
    allow_service_start
}

# install_own [bench]
install_own() {
    local missing=()
    if [ "${1:-}" = bench ]; then
        [ -x "$(command -v nutcracker || echo /usr/sbin/nutcracker)" ] || missing+=(nutcracker)
        [ -x "$(command -v haproxy || echo /usr/sbin/haproxy)" ] || missing+=(haproxy)
    fi
    command -v redis-server >/dev/null || missing+=(redis-server)
    command -v redis-cli >/dev/null || missing+=(redis-tools)
    command -v prometheus >/dev/null && command -v promtool >/dev/null || missing+=(prometheus)
    # The tests compile a few lines of C that set a server's clock (a linker is needed for Rust anyway).
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    # The wall clock of redtape itself is stepped by libfaketime.
    command -v faketime >/dev/null || missing+=(faketime)
    install_missing "${missing[@]}"
}

# --- servers of other suites ----------------------------------------------------------------------

# name            suites                          program  expected version
servers='
redis-6.0         bullseye                        redis    6.0
valkey-8.0        bookworm,bookworm-backports     valkey   8.0
redis-8.0.2       trixie                          redis    8.0.2
valkey-8.1        trixie                          valkey   8.1
redis-8.0.6       sid                             redis    8.0.6
redis-8.6         sid,experimental                redis    8.6
valkey-9.1        sid                             valkey   9.1
'

# The mirror and the key of the machine's own main archive, from a deb822 or a one-line source.
find_mirror() {
    local file
    mirror=; keyring=
    for file in /etc/apt/sources.list.d/*.sources; do
        [ -e "$file" ] || continue
        # First stanza whose suites name a Debian release and no security archive.
        IFS=$'\t' read -r mirror keyring < <(awk -v RS= -F'\n' '
            { uri = ""; key = ""; ok = 0
              for (i = 1; i <= NF; i++) {
                if ($i ~ /^URIs:/)      { uri = $i; sub(/^URIs:[ \t]*/, "", uri); split(uri, u, " "); uri = u[1] }
                if ($i ~ /^Signed-By:/) { key = $i; sub(/^Signed-By:[ \t]*/, "", key) }
                if ($i ~ /^Suites:/ && $i !~ /security/ && $i ~ /(bullseye|bookworm|trixie|forky|sid|stable|testing|unstable)/) ok = 1
              }
              if (ok && uri ~ /\/debian\/?$/) { printf "%s\t%s\n", uri, key; exit } }' "$file") || true
        [ -z "$mirror" ] || return 0
    done
    if [ -e /etc/apt/sources.list ]; then
        mirror=$(awk '$1 == "deb" { for (i = 2; i <= NF; i++) if ($i ~ /\/debian\/?$/) { print $i; exit } }' /etc/apt/sources.list)
        keyring=$(sed -n 's/.*signed-by=\([^] ]*\).*/\1/p' /etc/apt/sources.list | head -1)
    fi
    [ -n "$mirror" ] || die "no Debian mirror found in the machine's apt sources; 'all' needs one"
    [ -n "$keyring" ] || keyring=/usr/share/keyrings/debian-archive-keyring.gpg
}

# build NAME SUITES PROGRAM VERSION
build() {
    local name=$1 suites=$2 program=$3 version=$4
    local dir=$PWD/.servers/$name
    local answer
    if answer=$(server_version "$dir/$program-server"); then
        say "$name: $answer, there already"
        return
    fi
    local apt_dir=$PWD/.servers/.apt/${suites//,/+}
    mkdir -p "$apt_dir"/{lists/partial,cache/archives/partial,log,parts}
    : >"$apt_dir/status"
    # Of experimental only the server: the libraries are those of the suite that it is built on.
    if [[ $suites == *,experimental ]]; then
        printf 'Package: %s-*\nPin: release a=experimental\nPin-Priority: 990\n' "$program" >"$apt_dir/parts/experimental.pref"
    fi
    local apt=(-q -o "Dir::Etc::sourcelist=$apt_dir/own.sources" -o "Dir::Etc::sourceparts=$apt_dir/parts"
        -o "Dir::Etc::preferencesparts=$apt_dir/parts" -o "Dir::State::lists=$apt_dir/lists"
        -o "Dir::State::status=$apt_dir/status" -o "Dir::State::extended_states=$apt_dir/extended"
        -o "Dir::Cache=$apt_dir/cache" -o "Dir::Log=$apt_dir/log"
        -o Acquire::Check-Valid-Until=false -o Acquire::Languages=none -o APT::Sandbox::User=root
        -o APT::Install-Recommends=false -o Debug::NoLocking=true)
    if [ ! -e "$apt_dir/updated" ]; then
        find_mirror
        printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' \
            "$mirror" "${suites//,/ }" "$keyring" >"$apt_dir/own.sources"
        say "reading the package lists of ${suites//,/ and }"
        apt-get "${apt[@]}" update >"$apt_dir/update.out" 2>&1 || { cat "$apt_dir/update.out" >&2; die "no package lists for $suites"; }
        touch "$apt_dir/updated"
    fi
    say "$name: downloading and unpacking"
    # With an empty status file apt names the server's whole closure; only programs and libraries are wanted.
    local wanted
    mapfile -t wanted < <(apt-get "${apt[@]}" -s -y install "$program-server" "$program-tools" 2>/dev/null |
        awk -v p="^(lib|lua|zlib|$program)" '$1 == "Inst" && $2 ~ p { print $2 }')
    [ ${#wanted[@]} -gt 0 ] || die "$suites has no installable $program-server"
    local fresh=$dir.new
    rm -rf "$fresh" "$dir"
    mkdir -p "$fresh/debs" "$fresh/root"
    (cd "$fresh/debs" && apt-get "${apt[@]}" download "${wanted[@]}" >../download.out 2>&1) ||
        { tail -5 "$fresh/download.out" >&2; die "$name: download failed"; }
    local deb
    for deb in "$fresh"/debs/*.deb; do dpkg -x "$deb" "$fresh/root"; done
    rm -rf "$fresh/debs" "$fresh/download.out" "$fresh/root/usr/share" "$fresh/root/etc"
    wrapper "$fresh" "$program-server" "$program-server"
    wrapper "$fresh" "$program-cli" "$program-cli"
    mv "$fresh" "$dir"
    answer=$(server_version "$dir/$program-server") || die "$name: does not start: $dir/$program-server --version"
    case $answer in
        *"v=$version"*) say "$name: $answer" ;;
        *) say "$name: $answer (the suite has moved on from $version; still a good server to test against)" ;;
    esac
}

# wrapper DIR FILE PROGRAM: the suite's loader starts the suite's program with the suite's libraries.
# Nothing but shell built-ins runs before it, so that a preloaded library reaches the server alone.
wrapper() {
    local loader libs
    loader=$(cd "$1/root" && find . -name 'ld-linux-*.so.*' -printf '%P\n' | sort | head -1)
    libs=$(cd "$1/root" && find . -name 'lib*.so.*' -path '*-linux-gnu*/lib*' -printf '%h\n' |
        grep -- '-linux-gnu[a-z0-9]*$' | sort -u | sed -e 's|^\.|$here/root|' | paste -sd:)
    cat >"$1/$2" <<END
#!/bin/sh
case \$0 in /*) here=\${0%/*} ;; */*) here=\$PWD/\${0%/*} ;; *) here=\$PWD ;; esac
exec "\$here/root/$loader" --library-path "$libs" "\$here/root/usr/bin/$3" "\$@"
END
    chmod 755 "$1/$2"
}

server_version() { [ -x "$1" ] && "$1" --version 2>/dev/null | grep -o 'v=[0-9.]*' | head -1; }

# --- Redis's own test suite -----------------------------------------------------------------------

# The machine's own Debian sources, the security archive included (the server often comes from there),
# asked for source packages.
source_lists() {
    local file
    for file in /etc/apt/sources.list.d/*.sources; do
        [ -e "$file" ] || continue
        awk -v RS= '/URIs:[^\n]*\/debian(-security)?\/?(\n|$)/ { sub(/Types:[^\n]*/, "Types: deb-src"); print $0 "\n" }' "$file"
    done
    [ -e /etc/apt/sources.list ] || return 0
    awk '$1 == "deb" && /\/debian(-security)?\/? / { $1 = "deb-src"; print > "'"$1"'/own.list" }' /etc/apt/sources.list
}

tcl_has_tls() { tclsh <<<'exit [catch {package require tls}]' 2>/dev/null; }

install_suite() {
    local missing=() dir=$PWD/.servers/redis-suite version file
    command -v tclsh >/dev/null || missing+=(tcl)
    tcl_has_tls || missing+=(tcl-tls)
    command -v openssl >/dev/null || missing+=(openssl)
    command -v dpkg-source >/dev/null || missing+=(dpkg-dev)
    install_missing "${missing[@]}"
    # shellcheck disable=SC2016
    version=$(dpkg-query -W -f '${source:Version}' redis-server 2>/dev/null) ||
        die "the suite must be that of the server, and redis-server is not installed as a package here"
    [ "$(cat "$dir/version" 2>/dev/null)" != "$version" ] || return 0
    local apt_dir=$PWD/.servers/.apt/sources
    rm -rf "$apt_dir" "$dir.new"
    mkdir -p "$apt_dir"/{lists/partial,cache/archives/partial,log,parts} "$dir.new"
    : >"$apt_dir/status"
    source_lists "$apt_dir/parts" >"$apt_dir/parts/own.sources"
    local apt=(-q -o "Dir::Etc::sourcelist=/dev/null" -o "Dir::Etc::sourceparts=$apt_dir/parts"
        -o "Dir::State::lists=$apt_dir/lists" -o "Dir::Cache=$apt_dir/cache" -o "Dir::Log=$apt_dir/log"
        -o Acquire::Languages=none -o APT::Sandbox::User=root -o Debug::NoLocking=true)
    say "redis-suite: fetching the source package redis $version"
    apt-get "${apt[@]}" update >"$apt_dir/update.out" 2>&1 || { cat "$apt_dir/update.out" >&2; die "no lists of source packages"; }
    (cd "$dir.new" && apt-get "${apt[@]}" source "redis=$version" >"$apt_dir/source.out" 2>&1) || {
        tail -5 "$apt_dir/source.out" >&2
        die "no source package of redis $version: the server is older or newer than the archive (apt-get upgrade redis-server)"
    }
    # Only the tests are kept; the programs that they call are the machine's.
    for file in "$dir.new"/redis-*/{tests,utils,runtest}; do mv "$file" "$dir.new/"; done
    rm -rf "$dir.new"/redis-* "$dir.new"/redis_*
    mkdir "$dir.new/src"
    for file in redis-server redis-cli redis-benchmark; do ln -s "$(command -v "$file")" "$dir.new/src/$file"; done
    # The suite makes its certificates itself, but spends a minute on a file that nothing here reads.
    mkdir "$dir.new/tests/tls"
    : >"$dir.new/tests/tls/redis.dh"
    (cd "$dir.new" && bash utils/gen-test-certs.sh) >"$apt_dir/certs.out" 2>&1 ||
        { cat "$apt_dir/certs.out" >&2; die "the suite's certificates cannot be made"; }
    printf '%s\n' "$version" >"$dir.new/version"
    rm -rf "$dir"
    mv "$dir.new" "$dir"
    say "redis-suite: that of redis $version"
}

# --- client libraries -----------------------------------------------------------------------------

# Current releases, each in a folder of its own; `REDTAPE_CLIENTS_FRESH=1` asks the registries again.
install_clients() {
    local missing=() dir=$PWD/.servers/clients
    command -v python3 >/dev/null || missing+=(python3)
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    command -v node >/dev/null || missing+=(nodejs)
    command -v npm >/dev/null || missing+=(npm)
    install_missing "${missing[@]}"
    [ -z "${REDTAPE_CLIENTS_FRESH:-}" ] || rm -rf "$dir"
    mkdir -p "$dir"
    if [ ! -e "$dir/python/done" ]; then
        say "clients: redis-py"
        rm -rf "$dir/python"
        python3 -m venv "$dir/python"
        "$dir/python/bin/pip" install -q --upgrade redis hiredis
        touch "$dir/python/done"
    fi
    if [ ! -e "$dir/node/done" ]; then
        say "clients: node-redis and ioredis"
        rm -rf "$dir/node"
        mkdir -p "$dir/node"
        (cd "$dir/node" && npm init -y >/dev/null && npm install --silent --no-audit --no-fund redis@latest ioredis@latest)
        touch "$dir/node/done"
    fi
    say "clients: redis-py $("$dir/python/bin/python" -c 'import redis; print(redis.__version__)')," \
        "node-redis $(node -p "require('$dir/node/node_modules/redis/package.json').version")," \
        "ioredis $(node -p "require('$dir/node/node_modules/ioredis/package.json').version")"
}

install_own "${1:-}"
case ${1:-} in
    '' | bench) ;;
    all)
        if [ "$(uname -s)" != Linux ] || ! command -v dpkg >/dev/null || ! command -v apt-get >/dev/null; then
            die "'all' unpacks Debian packages and needs apt-get and dpkg"
        fi
        while read -r name suites program version; do
            [ -z "$name" ] || build "$name" "$suites" "$program" "$version"
        done <<<"$servers"
        ;;
    suite) install_suite ;;
    clients) install_clients ;;
    *) die "unknown argument '$1' (nothing, or: all, suite, clients, bench)" ;;
esac
