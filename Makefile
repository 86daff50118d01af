# Each command does its own set-up. `make test`: everything that CI runs. `make demo`: a VM joins a mesh on this machine.
# `make playground`: that mesh, and a shell on the VM.
# `make deb`: the packages, in target/deb. `make repo KEY=...`: of these a signed apt repository, in target/repo.
# `make release KEY=...`: all that a release has, in target/release-VERSION.
# `make bench`: what joining costs, beside Istio's own agent where $LAB_BIN has it, and what the rules cost a call;
# the table is in target/bench and in docs/performance.md. Some ten minutes, on a machine with nothing else to do.
# `make soak`: a day of events in an hour, or in as many seconds as SECONDS says; SEED repeats one, and
# EVENTS=disk-full,link-down has those alone.
# `make planned`: planned stops, upgrades and reboots under calls, ten times each or ROUNDS; with $LAB_BIN a real istiod's too.
# `make unit`: the tests that need no root, no network and no set-up.
# `make fuzz`: 10 million inputs for every parser of foreign bytes, or TARGET=dns_query RUNS=1000 for one.

.PHONY: bench deb demo fuzz planned playground release repo soak test unit

# Namespaces, netfilter and dockerd are root's.
ifneq ($(shell id -u),0)
as_root = sudo --preserve-env
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER = $(as_root)
endif

test:
	.ci/run

unit:
	cargo test --quiet -p istio-vm-agent --lib --test architecture --test documents
	cargo test --quiet -p istio-api

# Both architectures; packaging/build ARCH makes one.
deb:
	packaging/setup
	packaging/build amd64
	packaging/build arm64

# To sign, KEY: a secret key that gpg has, or a file with one. Of the packages that `make deb` made.
repo:
	packaging/setup
	packaging/repo "$(KEY)"

# All that a release has, checksums and apt repository signed with KEY.
release: deb
	packaging/release "$(KEY)"

demo:
	tests/setup demo
	cargo build -p istio-vm-agent -p e2e --bins
	$(as_root) "$$(packaging/target)/debug/demo" $(arguments)

playground: arguments = --playground
playground: demo

bench:
	tests/setup
	cargo build --release -p istio-vm-agent
	cargo build -p e2e --bins
	cargo run --quiet -p e2e --bin bench -- --agent "$$(packaging/target)/release/istio-vm-agent" \
		--table "$$(packaging/target)/bench" --document docs/performance.md

soak:
	tests/setup
	E2E_SOAK="$(or $(SECONDS),3600)" $(if $(SEED),E2E_SEED="$(SEED)") $(if $(EVENTS),E2E_EVENTS="$(EVENTS)") cargo test -p e2e --test cases -- --exact \
		"stand-in istiod: soak"

# The package is that of `make deb`.
planned:
	tests/setup
	E2E_PLANNED="$(or $(ROUNDS),10)" cargo test -p e2e --test cases -- "planned stops and upgrades"

fuzz:
	tests/fuzz/run $(TARGET)
