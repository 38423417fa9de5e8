# make build | test | demo | lint | bench | install | uninstall | clean
# Each does its own set-up (packaging/install-deps), so a fresh Debian 12 or 13 with Go and root or sudo is enough.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
.PHONY: build test demo lint fuzz bench install uninstall clean go-ready build-ready test-ready

# What takes long to make (lint tools, a real Ollama, Debian root file systems) is kept outside the checkout.
export CLOSEDPAW_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/closedpaw
# sudo forgets the usual place of Go.
export PATH := $(PATH):/usr/local/go/bin

VERSION ?= $(shell git -c safe.directory='$(CURDIR)' describe --tags --match 'v*' --always --dirty 2>/dev/null || echo devel)
STATIC := -tags 'netgo osusergo'
# The version is given by hand, as Go's own stamp fails where the checkout is another user's (sudo make).
GOBUILD := CGO_ENABLED=0 go build -trimpath -buildvcs=false

build: build-ready
	@mkdir -p bin
	$(GOBUILD) $(STATIC) -ldflags '-s -w -X main.version=$(VERSION)' -o bin/closedpawd ./daemon/closedpawd
	$(GOBUILD) -ldflags '-s -w -X main.version=$(VERSION)' -o bin/closedpawctl ./client/closedpawctl
	$(GOBUILD) -ldflags "-s -w -X gvisor.dev/gvisor/runsc/version.version=$$(go list -m -f '{{.Version}}' gvisor.dev/gvisor)" -o bin/runsc ./daemon/runsc
	@[ "$$(id -u)" != 0 ] || chown -h --reference=. bin bin/* # else a build without sudo could not replace them

test: test-ready
	@tools/test

demo: build
	@packaging/demo

lint: go-ready
	@tools/lint

fuzz: go-ready
	@tools/fuzz

bench: test-ready build
	@bin=$$(tools/ollama/build) && tools/asroot env CLOSEDPAW_TEST_OLLAMA="$$bin" go run ./internal/bench

# Where to: DESTDIR (empty: this machine, which is then set up and started too) and PREFIX.
DESTDIR ?=
PREFIX ?= /usr

install:
	@DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' packaging/install

# PURGE=1 also removes /etc/closedpaw, /var/lib/closedpaw and with them all sessions, keys and the audit log.
uninstall:
	@DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' PURGE='$(PURGE)' packaging/uninstall

clean:
	rm -rf bin

go-ready:
	@tools/need-go
build-ready: go-ready
	@packaging/install-deps build
test-ready: go-ready
	@packaging/install-deps build test
