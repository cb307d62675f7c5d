# Each target installs what it needs (apt) and may be run alone. Targets on real packets need root: sudo make test.
CARGO = packaging/cargo.sh
.DEFAULT_GOAL := build

.PHONY: build run demo deb test test-vm soak scan-table bench-peers lint clean help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

build: ## release build of all programs
	@packaging/deps.sh build
	@$(CARGO) build --release

run: build ## the engine on this host, in the foreground: scanners are banned, no port is filtered, gone at Ctrl-C
	@packaging/run.sh

demo: ## a real nmap against a real web server, without and with the engine; under a minute, leaves nothing
	@packaging/deps.sh demo
	@$(CARGO) build --release
	@packaging/demo.sh

deb: ## Debian packages of all programs, into target/debian/; PROFILE=dev: of the build that tests use
	@packaging/deps.sh deb
	@packaging/deb.sh $(PROFILE)

lint: ## formatting and lints
	@packaging/deps.sh build
	@$(CARGO) fmt --check
	@$(CARGO) clippy --all-targets -- --deny warnings

test: ## every test, also those on real packets (root); FILTER=word runs those whose names hold it
	@packaging/deps.sh test
	@$(MAKE) --no-print-directory lint
	@packaging/test.sh $(FILTER)
	@[ -n "$(FILTER)" ] || CARGO=$(CARGO) tests/vm/run

test-vm: ## what needs another kernel than this one, or systemd: in virtual machines with stock kernels; some five minutes
	@packaging/deps.sh test
	@CARGO=$(CARGO) tests/vm/run

soak: ## the same tests with long counts, on the release build; no time limit
	@packaging/deps.sh test
	@VERDICTD_SOAK=1 TEST_LIMIT=0 packaging/test.sh --release $(FILTER)
	@[ -n "$(FILTER)" ] || CARGO=$(CARGO) tests/vm/run --long

scan-table: ## what each kind of scan meets, measured and written into docs/detection.md (root)
	@packaging/scan-table.sh

bench-peers: ## what webhook receivers that misbehave cost a verdict, side by side; some five minutes (root)
	@packaging/deps.sh test
	@$(CARGO) bench --no-run --bench peers
	@$$($(CARGO) bench --no-run --bench peers --message-format json 2>/dev/null | sed -n 's/.*"executable":"\([^"]*\/peers-[^"]*\)".*/\1/p')

clean: ## what was built
	@$(CARGO) clean
