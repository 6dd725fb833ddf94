# One command here is one script in hack/, which says what it does. CI runs the same: .ci/run.

.DEFAULT_GOAL := help
.PHONY: help build demo test kube-rs fuzz torture bench bench-quick lint generate image clean-demo

help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build target/release/oncelet
	cargo build --release --locked --package oncelet

demo: ## the story of the README, on this machine, from nothing; ends by itself
	@hack/demo.sh

test: ## all tests, with all they need; says loudly what is skipped
	@hack/test.sh

kube-rs: ## the cluster tests that kube-rs publishes, against the embedded API server
	@hack/kube-rs.sh

fuzz: ## ten million random inputs; about two hours
	@hack/fuzz.sh

torture: ## every fail point with every fault, hundreds of kills, engines that die: a quarter of an hour
	@hack/torture.sh

bench: ## side by side with the bare engine and a kube-apiserver, as ratios; writes docs/benchmarks.md
	@hack/bench.sh

bench-quick: ## the same in a few minutes, with smaller numbers
	@ONCELET_BENCH=quick hack/bench.sh

lint: ## formatting, clippy, the rules between the crates, scripts, licences
	@hack/lint.sh

generate: ## write crds/ and docs/reference.md from the types
	cargo xtask crds

image: ## make the small image of the demo and the tests in the engine
	@hack/test-image.sh

clean-demo: ## remove the containers (oncelet-demo-*) and the image of the demo
	@hack/clean-demo.sh
