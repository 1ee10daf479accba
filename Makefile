# Run `make help` for what there is to run.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := help

# Every module is built, tested and linted by its own go.mod, as its image is. go.work is for editors.
export GOWORK := off
export PATH := $(CURDIR)/.bin:$(PATH)

MODULES := $(shell sed -n 's|^[[:space:]]*\./||p' go.work)
SERVICES := $(notdir $(patsubst %/main.go,%,$(wildcard services/*/cmd/*/main.go)))
STORES := $(patsubst %/,%,$(dir $(wildcard services/*/internal/store/sqlc.yaml)))

# The longest that the tests of one package may take.
TIMEOUT ?= 15m
# How long `make torture` goes on.
FOR ?= 10m

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

## Running

.PHONY: run
run: chatapp ## Start everything on http://localhost:8080; flags: make run ARGS=--demo
	@exec chatapp run $(ARGS)

.PHONY: bench
bench: chatapp servers ## Measure sending, history, delivery and subscriptions; some: make bench ARGS=--only=edge
	@exec chatapp bench $(ARGS)

.PHONY: torture
torture: chatapp servers ## Send while services, Redis and MySQL die, and check what arrives: make torture FOR=10m
	@exec chatapp torture --for=$(FOR) $(ARGS)

## Building

.PHONY: build
build: chatapp $(SERVICES) ## Build the services and chatapp into .bin

.PHONY: $(SERVICES)
$(SERVICES):
	@tools/go-build services/$@ ./cmd/$@

.PHONY: chatapp
chatapp:
	@tools/go-build dev ./cmd/chatapp

.PHONY: clean
clean: ## Remove what was built; what people wrote, in .chatapp, stays
	rm -rf .bin .cache api/.deps

## Testing

.PHONY: test
test: $(MODULES:%=test/%) test-faults test-tidb ## Test every module, with the race detector; one of them: make test/services/users

.PHONY: $(MODULES:%=test/%)
$(MODULES:%=test/%): test/%: servers
	go -C $* test -race -timeout $(TIMEOUT) ./...

# Compiling TiDB takes minutes, once: with progress here rather than against the clock of a test.
test/dev: tidb

.PHONY: tidb
tidb: chatapp
	@chatapp with-tidb -- true

.PHONY: test-faults
test-faults: servers ## Test the fault points, and that the hub's protections are what keeps its promises
	go -C internal/platform test -race -tags faults ./fault
	go -C services/graph test -race -tags faults -timeout $(TIMEOUT) ./internal/hub

.PHONY: test-tidb
test-tidb: $(STORES:%=test-tidb/%) ## Test the stores on the embedded TiDB

.PHONY: $(STORES:%=test-tidb/%)
$(STORES:%=test-tidb/%): test-tidb/%: tidb
	chatapp with-tidb -- go -C $* test -race -timeout $(TIMEOUT) ./...

.PHONY: servers
servers:
	@tools/test-servers

## Generating

.PHONY: generate
generate: .bin/buf .bin/protoc-gen-go .bin/protoc-gen-go-grpc .bin/sqlc api/.deps ## Generate code from protos, SQL and the GraphQL schema, and the list of settings
	cd api && buf generate
	@for store in $(STORES); do \
		echo "sqlc generate in $$store"; \
		rm -f $$store/internal/db/*.sql.go; \
		sqlc generate -f $$store/sqlc.yaml; \
	done
	go -C services/graph tool gqlgen generate
	go -C dev/internal/bench/edge/rivals/stock tool gqlgen generate
	@$(MAKE) docs/configuration.md

# By a make of its own, since the services are built from what was generated before.
.PHONY: docs/configuration.md
docs/configuration.md: $(SERVICES)
	@tools/config-docs $(SERVICES) >$@.new
	@mv $@.new $@

.PHONY: generate-check
generate-check: ## Fail when `make generate` changes a file
	@tools/generate-check

# What the protos import. Its time stands for its content, which changes with the tool only.
api/.deps: .bin/validateproto
	validateproto $@
	@touch $@

## Linting

.PHONY: lint
lint: $(MODULES:%=lint/%) lint/tools/validateproto lint-format lint-proto lint-tidy lint-links lint-shell generate-check ## Check code, protos, go.mod files, links and generated code

.PHONY: $(MODULES:%=lint/%) lint/tools/validateproto
$(MODULES:%=lint/%) lint/tools/validateproto: lint/%: .bin/golangci-lint
	cd $* && golangci-lint run ./...

# TiDB takes minutes to compile, which the other linters would have to wait for.
.PHONY: lint-format
lint-format: .bin/golangci-lint
	golangci-lint fmt --diff dev/tidb

.PHONY: lint-proto
lint-proto: .bin/buf api/.deps
	cd api && buf lint
	cd api && buf format --diff --exit-code proto
	@tools/buf-breaking

.PHONY: lint-tidy
lint-tidy:
	@for module in $(MODULES) tools/validateproto; do \
		echo "go mod tidy -diff in $$module"; \
		go -C $$module mod tidy -diff; \
	done

.PHONY: lint-links
lint-links:
	@tools/check-links

.PHONY: lint-shell
lint-shell:
	@if command -v shellcheck >/dev/null; then \
		shellcheck .ci/run $$(grep -lI '^#!/usr/bin/env bash' tools/*); \
	fi

## Tools, pinned in tools/NAME/go.mod

TOOLS := buf golangci-lint protoc-gen-go protoc-gen-go-grpc sqlc

# Without cgo, which sqlc would need a C compiler and many minutes for.
$(TOOLS:%=.bin/%): .bin/%: tools/%/go.mod tools/%/go.sum
	@CGO_ENABLED=0 tools/go-build tools/$* tool
	@touch $@

.bin/validateproto: tools/validateproto/main.go tools/validateproto/go.mod
	@CGO_ENABLED=0 tools/go-build tools/validateproto .
	@touch $@
