# slicelb needs git, make and Go 1.26 or later. What a target needs beyond that
# it installs from the distribution's packages, and says so.

GO      ?= go
# What is built, as git describes it; the program and the packages make one version of it.
VERSION ?= $(shell git describe --tags --always --dirty --abbrev=12 2>/dev/null)
# Where Debian keeps <asm/types.h>: clang for BPF does not look there.
MULTIARCH := /usr/include/$(shell uname -m)-linux-gnu

.DEFAULT_GOAL := build

.PHONY: build
build: need-go ## bin/slicelb, with Go alone
	@version=$$($(GO) run ./internal/pack -print-version -version "$(VERSION)") && set -x && \
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w -X main.version=$$version" -o bin/slicelb ./cmd/slicelb

.PHONY: demo
demo: need-go ## boot a throwaway systemd, run slicelb in it and show what it does
	@$(GO) run ./internal/ci packages demo
	@$(MAKE) --no-print-directory build
	@$(GO) run ./internal/demo

.PHONY: test
test: need-go ## every check: generated files, linters, tests, real kernels, real systemd
	@$(GO) run ./internal/ci test

.PHONY: soak
soak: need-go ## the tests with their counts in full (SLICELB_SCALE=1): hours
	@$(GO) run ./internal/ci soak

.PHONY: kernels
kernels: need-go ## the tests on Debian's 6.1 and 6.12 kernels alone, under qemu
	@$(GO) run ./internal/ci kernels

.PHONY: lint
lint: need-go ## gofmt, go vet, staticcheck
	@$(GO) run ./internal/ci lint

.PHONY: generate
generate: need-go ## rebuild the committed BPF objects, with clang 19
	@$(GO) run ./internal/ci packages generate
	@$(MAKE) --no-print-directory generate-only

.PHONY: generate-only
generate-only:
	BPF2GO_CFLAGS=-I$(MULTIARCH) $(GO) generate ./bpf

.PHONY: package
package: need-go ## deb and rpm for amd64 and arm64, in dist/
	$(GO) run ./internal/pack -version "$(VERSION)"

.PHONY: release
release: need-go ## the same of a tag, with checksums and notes
	$(GO) run ./internal/pack -release -version "$(VERSION)"

.PHONY: bench
bench: need-go ## what a connect costs, side by side
	$(GO) run ./bench

.PHONY: clean
clean: ## remove what was built or downloaded
	rm -rf bin dist .cache

.PHONY: help
help: ## this text
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

.PHONY: need-go
need-go:
	@command -v $(GO) >/dev/null || { echo "slicelb is built with Go 1.26 or later, and there is no '$(GO)' in PATH: see https://go.dev/dl/" >&2; exit 1; }
