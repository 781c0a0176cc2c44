# Everything works on Debian 12 with Go, git and root; what is missing is
# installed with apt-get.
.PHONY: build demo test matrix containers captures lint bench chaos load endurance generate clean help

build: ## bin/phpwhy
	scripts/build

demo: build ## a PHP script that hangs, and the report on it
	scripts/demo

test: ## go vet, all tests against real PHP, each fuzz target for some seconds
	scripts/test

matrix: ## the longer comparison: every PHP that can be built, PHP inside other programs, and the HTML report in Chromium
	scripts/matrix

containers: ## PHP in containers: Debian trixie on overlayfs, musl; from outside and inside
	scripts/containers

captures: build ## record what the built-in rules are tested with anew; ONLY=healthy those whose names begin so
	scripts/captures $(ONLY)

lint: ## golangci-lint, as .golangci.yml says
	scripts/lint

bench: build ## phpwhy against gdb, eu-stack, strace, bpftrace and a bare ptrace loop, as Markdown tables
	scripts/bench

chaos: build ## phpwhy killed, workers killed, forked and signalled at drawn moments: what became of them
	scripts/chaos

load: build ## phpwhy on a php-fpm pool that serves requests: failed requests and latencies
	scripts/load

endurance: build ## phpwhy watch for ten minutes over workers that come and go: what it takes, what it finds
	scripts/watch-endurance

generate: ## the JSON Schemas of rules, and the prepared form and the catalogue of the built-in ones
	scripts/generate

clean: ## remove what was built, but for the cached PHP in .cache
	rm -rf bin .cache/demo

help: ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' Makefile
