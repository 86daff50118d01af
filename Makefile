# Two commands do all the set-up. `make test`: everything that CI runs. `make demo`: a VM joins a mesh on this machine.

.PHONY: demo setup test

# Namespaces, netfilter and dockerd are root's.
ifneq ($(shell id -u),0)
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER = sudo --preserve-env
endif

test:
	.ci/run

demo: setup
	cargo build --workspace --bins
	cargo run --quiet -p e2e --bin demo

setup:
	tests/setup
