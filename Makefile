# The two commands of a newcomer are `make demo` and `make test`; `make help` lists all.
PYTHON ?= python3
BIN := .venv/bin
MINUTES ?= 20
DATA ?= tiny_imagenet_10
# Tests start many processes: the modules that one has compiled, another need not.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses=8 --dist=worksteal

.DEFAULT_GOAL := help
.PHONY: help demo check quick test coverage mutation fuzz lint format schema results gpu-check clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/installed ## Train a small ResNeXt on synthetic images for about half a minute, on any machine
	@out=runs/demo-$$(date +%Y%m%d-%H%M%S) && $(BIN)/resnext train --config smoke --out $$out && printf '%s\n' '' \
		"curves           $(BIN)/tensorboard --logdir runs" \
		"evaluate again   $(BIN)/resnext eval --ckpt $$out" \
		"your own images  $(BIN)/resnext train --config resnet18 --data /path/to/images --dry-run"

check: .venv/installed-dev ## Check style and types, and run the quick unit tests: under two minutes on two cores
	@$(MAKE) --no-print-directory -j2 lint quick

quick: .venv/installed-dev
	$(PYTEST) tests/unit -m "not slow"

test: .venv/installed-dev ## Run the whole test suite
	$(PYTEST) --durations=15

coverage: .venv/installed-dev ## Run the whole test suite; list the package's files by covered lines, lowest first
	$(PYTEST) --cov=resnext_train --cov-report=
	@$(BIN)/coverage report --sort=cover

mutation: .venv/installed-dev ## Plant faults one by one, and see that the test suite catches each
	$(BIN)/python tests/mutation/run.py

fuzz: .venv/installed-dev ## For 20 minutes (MINUTES=20), feed damaged images and packs to all that reads them
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m fuzz.fuzz_images --minutes $(MINUTES)

lint: .venv/installed-dev ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed-dev ## Rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schema: .venv/installed ## Write the recipes' JSON schema, for editors, to configs/recipe.schema.json
	$(BIN)/python scripts/write_schema.py

results: .venv/installed ## Train and compare again what docs/results shows: an hour on two cores (DATA=/path/to/tiny_imagenet_10)
	$(BIN)/resnext sweep --config tiny_imagenet/resnext26_32x4d tiny_imagenet/resnet26_1x64d \
		tiny_imagenet/resnet20_32px tiny_imagenet/plain20_32px --seeds 0:3 --out runs/results data.root=$(DATA) \
		train.epochs=10 schedule.warmup=2 log.every=10

gpu-check: .venv/installed-dev ## Prove the GPU path on a GPU host, stage by stage (OUT=gpu.json; DEVICE=cpu: what a CPU can show)
	$(BIN)/python -m scripts.gpu_check $(if $(OUT),--out $(OUT)) $(if $(DEVICE),--device $(DEVICE))

clean: ## Remove the virtual environment and caches; runs/ stays
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache dist

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/installed-dev: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch .venv/installed $@
