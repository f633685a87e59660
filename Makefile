# The recipes: the only place where the project's commands are written down. `.ci/run` calls them.
#
#   make demo      the whole story on a server of its own: write, lose, find, restore, compare
#   make test      every test, on the machine's own redis-server
#   make lint      formatting, layout (arrows between crates, import cycles between files), clippy, rustdoc, dependencies
#   make compat    exactness, and every target of a restore (files, a read-only server, a cluster), on every server of
#                  scripts/install-servers.sh and from each into each other; the RDB and values in pieces; then the suite
#   make suite     Redis's own test suite through redtape, in each way of sharing and by TLS; the journal taken is proven
#   make clients   current releases of client libraries, directly and through redtape
#   make crash     kill -9 of redtape, of the server, of both under load, many times (N=200)
#   make restarts  restarts of the server, failovers and promotions under load, many times each (N=20)
#   make repairs   repairs of a live server and restores into files are killed at random points, and run again (N=100 for each kind)
#   make undos     random histories with bad writes are undone, and compared with a server that never got them (N=1000, half an hour)
#   make power     power failures: the disk as each call may leave it, many times (N=10000)
#   make soak      random conversations beside a bare server, each with another seed (N=120, half an hour)
#   make slice     random histories: what a sliced restore holds is what a full one holds (N=1000, ten minutes; REDTAPE_SEED)
#   make beside    readers in a loop beside everything that writes: no work in progress is taken for damage (N=180 seconds)
#   make fuzz-sessions  attackers beside victims on shared connections, and beside a bare server (T=600 seconds; REDTAPE_SEED)
#   make attribution  scripts, functions and transactions of up to 50 clients: whose, and when (release build)
#   make disk      each sync fails, each write finds the disk full, in turn (N=100)
#   make tamper    every bit of a larger segment is flipped, and a whole verification must find each in its place (BYTES=65536)
#   make fuzz      any bytes for each parser, with cargo-fuzz (T=60 seconds each; TARGETS='segment block')
#   make measure   what single parts cost: the capture, the journal's writer, a search, counting, encryption, undo files, values in
#                  pieces (minutes, most of them to build; gigabytes on the disk for undo files)
#   make bench     what redtape costs, beside Redis itself and other proxies (FULL=1: every cell, hours)
#
# Everything but a Rust toolchain is installed when missing (needs root, or sudo without a password).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
CARGO ?= cargo
BYTES ?= 65536
T ?= 60
TARGETS ?= group block segment manifest key_index filters_file undo_file lines resp_request resp_reply rdb rdb_walk when

# nextest keeps the heavy tests apart (.config/nextest.toml). Without it, one test at a time does.
nextest := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo yes)
ifeq ($(nextest),yes)
run_tests = $(CARGO) nextest run
run_long_tests = $(CARGO) nextest run --run-ignored only --profile long
one_at_a_time =
long_ones =
else
run_tests = $(CARGO) test
run_long_tests = $(CARGO) test
one_at_a_time = -- --test-threads=1 --nocapture
long_ones = -- --ignored --test-threads=1 --nocapture
endif

.PHONY: demo test lint compat suite clients crash restarts repairs undos power soak slice beside fuzz-sessions attribution disk tamper fuzz measure bench servers

servers:
	@scripts/install-servers.sh

demo: servers
	@$(CARGO) build --release --bin redtape
	@target/release/redtape demo

test: servers
	$(run_tests) --workspace $(one_at_a_time)
	$(CARGO) test --workspace --doc

lint:
	$(CARGO) fmt --all --check
# tests/layout/src/layers.rs is the table of allowed arrows. Seconds to build: it shares nothing with the product.
	$(CARGO) run --quiet -p redtape-layout -- --root .
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items
	$(CARGO) deny --log-level error check bans licenses sources
# The advisory database is fetched from the network; where it cannot be had, say so and go on.
	@if timeout 120 $(CARGO) deny --log-level error fetch db >/dev/null 2>&1; \
	    then $(CARGO) deny --log-level error check advisories; \
	    else echo "lint: the advisory database cannot be fetched from here; advisories NOT checked" >&2; fi

# Each server in turn, the machine's own included; all are tried, and the names of those that failed end the run. In all half an hour,
# and that of the suite.
compat:
	@scripts/install-servers.sh all
	@failed=; \
	try() { "$$@" || failed="$$failed $$server ($$what)"; }; \
	for server in "$$(command -v redis-server)" $$PWD/.servers/*/redis-server $$PWD/.servers/*/valkey-server; do \
	    echo "=== $$server: $$($$server --version | cut -d' ' -f1-3)"; \
	    export REDTAPE_TEST_SERVER=$$server; \
	    for what in exactness files aof_history serve cluster_target report get diff undo_edges; do \
	        try $(run_tests) -p redtape --test whole $$what:: $(one_at_a_time); \
	    done; \
	    what=versions; try $(run_long_tests) -p redtape --test whole versions:: $(long_ones); \
	    what=RDB; try $(run_tests) -p redtape-wire --test rdb $(one_at_a_time); \
	    what="values in pieces"; try $(run_tests) -p redtape-restore --test pieces $(one_at_a_time); \
	done; \
	[ -z "$$failed" ] || { echo "compat: failed on$$failed" >&2; exit 1; }
	@$(MAKE) --no-print-directory suite

# About 12 minutes for each way. REDTAPE_BIN=..., REDTAPE_SUITE_FILES="unit/multi": see the script.
suite: servers
	@[ -n "$${REDTAPE_BIN:-}" ] || $(CARGO) build --release --bin redtape
	@scripts/redis-suite.sh

# Some libraries want a newer server for some checks: where `make compat` has brought one, it is used as well.
clients:
	@scripts/install-servers.sh clients
	@for server in redis-server $$(ls -d $$PWD/.servers/redis-8.0.6/redis-server 2>/dev/null); do \
	    echo "=== $$server"; \
	    REDTAPE_TEST_SERVER=$$server $(CARGO) test -p redtape --test whole real_clients:: -- --include-ignored --test-threads=1 --nocapture; \
	done

crash: servers
	REDTAPE_CRASHES=$(or $(N),200) $(run_long_tests) -p redtape --test whole nothing_lost:: $(long_ones)

restarts: servers
	REDTAPE_RESTARTS=$(or $(N),20) $(run_long_tests) -p redtape --test whole restarts:: $(long_ones)

repairs: servers
	REDTAPE_N=$(or $(N),100) $(run_long_tests) -p redtape --test whole live_repair:: $(long_ones)
	REDTAPE_N=$(or $(N),100) $(run_long_tests) -p redtape --test whole files_killed:: $(long_ones)

undos: servers
	REDTAPE_UNDOS=$(or $(N),1000) REDTAPE_WORLDS=8 $(CARGO) test -p redtape --test whole undo_model:: -- --nocapture

power: servers
	REDTAPE_IMAGES=$(or $(N),10000) $(run_long_tests) -p redtape --test whole power:: $(long_ones)

soak: servers
	REDTAPE_CONVERSATIONS=$(or $(N),120) $(run_long_tests) -p redtape --test whole transparent::many $(long_ones)

slice: servers
	REDTAPE_SLICES=$(or $(N),1000) $(CARGO) test -p redtape-restore --test sliced a_slice_equals -- --nocapture

beside: servers
	REDTAPE_BESIDE_SECONDS=$(or $(N),180) $(CARGO) test -p redtape-journal --lib beside::
	REDTAPE_BESIDE_SECONDS=$(or $(N),180) $(CARGO) test -p redtape --test whole beside:: -- --nocapture

# T has a default of its own here. What may differ from a bare server is named in tests/whole/transparent/hostile.rs.
fuzz-sessions: servers
	REDTAPE_FUZZ_SECONDS=$(if $(filter file,$(origin T)),600,$(T)) $(CARGO) test -p redtape --test whole \
	    transparent::attackers_change_nothing_for_others -- --test-threads=1 --nocapture

attribution: servers
	REDTAPE_ATTRIBUTION_MILLIS=5000 $(CARGO) test --release -p redtape --test whole attribution:: \
	    -- --test-threads=1 --nocapture

disk: servers
	REDTAPE_DISK_CALLS=$(or $(N),100) $(run_long_tests) -p redtape --test whole disk_trouble:: $(long_ones)

# In a release build, each form of a segment. The time of whole verifications grows with the square of BYTES: a quarter of an
# hour for 65536.
tamper:
	REDTAPE_TAMPER_BYTES=$(BYTES) $(CARGO) test --release -p redtape-journal --lib every_flipped_bit_of_a_large -- --ignored --nocapture

# The sanitizers' flags are meant for a nightly compiler; the stable one takes them when told so.
fuzz:
	@$(CARGO) fuzz --version >/dev/null 2>&1 || $(CARGO) install cargo-fuzz --locked
	@mkdir -p fuzz/corpus/segment
	@for file in journal/tests/golden/*/*.seg; do cp "$$file" "fuzz/corpus/segment/$$(basename "$$(dirname "$$file")").seg"; done
	@mkdir -p fuzz/corpus/rdb_walk
	@cp wire/tests/golden/*.rdb fuzz/corpus/rdb_walk/
	@for target in $(TARGETS); do \
	    mkdir -p fuzz/corpus/$$target; \
	    RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run $$target -- -max_total_time=$(T) -max_len=65536 -timeout=20 -rss_limit_mb=4096; \
	done

# Nanoseconds and shares on a quiet machine. REDTAPE_SEARCH_MIB: how large the journal is that is searched (512).
measure:
	$(CARGO) test --release -p redtape-proxy --lib cost:: -- --ignored --nocapture
	$(CARGO) test --release -p redtape-capture --lib accident:: -- --ignored --nocapture
	$(CARGO) test --release -p redtape-journal --test search --test size -- --include-ignored --nocapture --test-threads=1
	$(CARGO) test --release -p redtape-journal --test undo_file -- --ignored --nocapture
	$(CARGO) test --release -p redtape-restore --test pieces measure:: -- --ignored --nocapture
	$(CARGO) bench -p redtape-journal --bench writer
	$(CARGO) bench --bench log_stats
	$(CARGO) test --release -p redtape --test whole diff::an_hour_of_writes -- --ignored --nocapture

# Side by side in one run; quote the ratios. benches/README.md says how to read them; ARGS go to the peers
# bench, e.g. ARGS='--only p1-set --peer redis,redtape'. Another binary: REDTAPE_BIN.
bench:
	@scripts/install-servers.sh bench
	$(CARGO) build --release --bin redtape
	$(CARGO) bench --bench framing
	$(CARGO) bench --bench restore
	$(CARGO) bench --bench peers -- $(if $(FULL),--full) $(ARGS)
