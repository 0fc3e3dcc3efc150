# Regard's tasks. `make` lists them.

PYTHON ?= python3
DATA ?=
MODELS ?= models
EVALUATED ?= build/evaluated
BENCH ?=
PEERS ?=
PARITY ?=
EXPORT ?=
ATTENTION ?=
LOAD ?=
ATTRIBUTION ?=
IMAGE ?= regard
PROCESSOR ?= cpu
BASE ?=
BUILDER ?= $(shell command -v buildah || command -v docker)
BUILDER_OPTIONS ?=
GPU ?=
STATES ?= 10000
GPU_ENVIRONMENT := build/gpu-environment

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP_INSTALL := $(BIN)/python -m pip install -qq --no-compile --constraint constraints.txt
CHECKPOINTS := $(patsubst export/checkpoints/%/config.json,%,$(wildcard export/checkpoints/*/config.json))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help env constraints protos protos-check lint test test-state test-gpu-environment parity parity-decoding packages demo serve bench bench-peers bench-attention bench-export bench-export-memory load alignment attribution quality determinism gpu-check tools image train-translator train-intent train-captioner evaluate clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(READY) ## Make the environment in .venv, with the pinned versions

$(READY): pyproject.toml constraints.txt
	@echo "==> environment: $(VENV) (torch and its friends; some minutes the first time)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Regard needs Python 3.11 or later; set PYTHON")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP_INSTALL) --upgrade pip
	@$(PIP_INSTALL) --build-constraint constraints.txt --editable '.[cpu,export]' --group dev
	@touch $@

constraints: env ## Pin what is installed now in constraints.txt
	@$(PIP_INSTALL) --group bench --group deploy --group load
	@{ head -n 1 constraints.txt; $(BIN)/python -m pip freeze --all --exclude-editable | sed 's/+cpu$$//'; } > $(VENV)/pins
	@mv $(VENV)/pins constraints.txt && touch $(READY)

protos: env ## Write service/regard/v1 from protos/
	@echo "==> protos"
	@$(BIN)/python protos/generate.py service

protos-check: env
	@rm -rf build/protos && mkdir -p build/protos
	@$(BIN)/python protos/generate.py build/protos
	@diff -r --exclude=__init__.py --exclude=__pycache__ build/protos/regard/v1 service/regard/v1 \
		|| { echo "service/regard/v1 differs from protos/: run make protos"; exit 1; }

lint: env protos-check ## Check style, types and protos
	@echo "==> ruff"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { echo "run $(BIN)/ruff format"; exit 1; }
	@echo "==> mypy"
	@$(BIN)/mypy
	@echo "==> buf"
	@$(BIN)/buf lint protos

test: lint ## Check everything: lint, export of the demonstration checkpoints, tests, the wheel
	@echo "==> tests"
	@OMP_NUM_THREADS=1 $(BIN)/pytest --quiet --numprocesses=2 --dist=loadfile

test-state: env ## Try the scheduler and the rows under 10,000 random courses of events (STATES=100000 for more)
	@OMP_NUM_THREADS=1 REGARD_STATE_EXAMPLES=$(STATES) $(BIN)/pytest --quiet --timeout=7200 tests/unit/test_engine_states.py

test-gpu-environment: env ## Test what the runtime for GPUs says where there is none (fetches 200 MB)
	@echo "==> environment: $(GPU_ENVIRONMENT)"
	@test -x $(GPU_ENVIRONMENT)/bin/python || $(PYTHON) -m venv $(GPU_ENVIRONMENT)
	@$(GPU_ENVIRONMENT)/bin/python -m pip install -qq --no-compile --constraint constraints.txt . 'onnxruntime-gpu>=1.31,<2'
	@$(BIN)/pytest --quiet tests/service/test_gpu_environment.py

parity: env ## Hold every family and every classic, in the engine, to eager PyTorch: one table (PARITY=Marian for a row)
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.parity.certificate $(PARITY)

parity-decoding: env ## Hold every kind of search, in mixed batches, to generate() (PARITY=--help lists the options)
	@$(BIN)/python -m tests.parity.decoding $(PARITY)

packages: $(CHECKPOINTS:%=$(MODELS)/.%.exported) ## Export the demonstration checkpoints into models/

.SECONDEXPANSION:
$(MODELS)/.%.exported: $(READY) $$(wildcard export/checkpoints/$$*/*) $(wildcard export/regard_export/*.py export/regard_export/*/*.py)
	@mkdir -p $(MODELS)
	@$(BIN)/regard-export export/checkpoints/$* --output $(MODELS) --overwrite --interventions
	@test ! -f export/checkpoints/$*/bitext.tsv \
		|| $(BIN)/regard-export calibrate $(MODELS)/$*/1 --bitext export/checkpoints/$*/bitext.tsv
	@touch $@

demo: packages ## Export, serve, translate, caption, classify and show the attention
	@echo "==> demonstration"
	@$(BIN)/regard demo --models $(MODELS) --output demo

serve: packages ## Serve the demonstration models
	@$(BIN)/regard serve --models $(MODELS)

bench: env ## Measure against Transformers and CTranslate2 (25 minutes; BENCH=--quick for a smoke run)
	@$(PIP_INSTALL) --group bench
	@$(BIN)/python -m load_tests.peers.bench $(BENCH)

bench-peers: env ## Compare with CTranslate2 and Transformers in every respect (40 minutes; PEERS=--help lists the options)
	@$(PIP_INSTALL) --group bench
	@$(BIN)/python -m load_tests.peers.compare $(PEERS)

bench-attention: env ## Measure what attention costs those who ask and those beside them (ATTENTION=--quick to rehearse)
	@$(PIP_INSTALL) --group bench
	@$(BIN)/python -m load_tests.attention.bench $(ATTENTION)

bench-export: env ## Measure exported graphs against torch.onnx.export's (16 minutes; EXPORT=--quick for a smoke run)
	@$(BIN)/python -m load_tests.export.bench $(EXPORT)

bench-export-memory: env ## Measure the memory of an export of NLLB's 600M shape (EXPORT=--half for half of it)
	@$(BIN)/python -m load_tests.export.memory $(EXPORT)

tools: env ## Fetch what the tests of deploy/ need: helm, and Kubernetes' schemas
	@echo "==> tools: build/tools"
	@deploy/tools.sh build/tools
	@$(PIP_INSTALL) --group deploy

image: ## Build the server's image with buildah or docker: make image BASE=python:3.12-slim-bookworm PROCESSOR=gpu
	@test -n "$(BUILDER)" || { echo "make $@ needs buildah or docker"; exit 2; }
	@$(BUILDER) build $(BUILDER_OPTIONS) $(BASE:%=--build-arg BASE=%) --file deploy/docker/Dockerfile.$(PROCESSOR) --tag $(IMAGE) \
		--build-arg REVISION=$$(git describe --always --abbrev=40 --dirty 2>/dev/null || echo unknown) .

load: packages ## Let users of the demonstration's three tasks ask a server, half a minute (LOAD=--help lists the options)
	@$(PIP_INSTALL) --group load
	@echo "==> load"
	@$(BIN)/python -m load_tests.run --models $(MODELS) $(LOAD)

gpu-check: ## Prove and measure everything on a GPU, if there is one (8 minutes at most; GPU=--help lists the options)
	@PYTHONPATH="service:export:$$PYTHONPATH" $(firstword $(wildcard $(BIN)/python) $(PYTHON)) -m load_tests.gpu.check $(GPU)

alignment: packages ## Measure word alignment against links that people made: make alignment DATA=alignment-hansards-en-fr
	@test -n "$(DATA)" || { echo "say where the data is: make $@ DATA=..."; exit 2; }
	@PYTHONPATH=. $(BIN)/python export/training/evaluate_alignment.py --data $(DATA) --models $(MODELS)

attribution: packages ## Measure how faithful each way to attribute is, beside random orders (ATTRIBUTION=--help lists the options)
	@PYTHONPATH=. $(BIN)/python export/training/evaluate_attribution.py --models $(MODELS) $(ATTRIBUTION)

quality: packages ## Measure the warnings of quality on corrupted translations: make quality DATA=fra-eng.zip
	@test -n "$(DATA)" || { echo "say where the data is: make $@ DATA=..."; exit 2; }
	@PYTHONPATH=. $(BIN)/python export/training/evaluate_quality.py --data $(DATA) --models $(MODELS)

determinism: $(CHECKPOINTS:%=$(EVALUATED)/.%.exported) ## Measure what neighbours, threads and int8 change in answers: make determinism DATA="fra-eng.zip data_full.json"
	@test -n "$(DATA)" || { echo "say where the data is: make $@ DATA=..."; exit 2; }
	@PYTHONPATH=. $(BIN)/python export/training/evaluate_determinism.py --data $(DATA) --models $(EVALUATED)

train-translator: env ## Train demo-en-fr anew: make train-translator DATA=fra-eng.zip
	@test -n "$(DATA)" || { echo "say where the data is: make $@ DATA=..."; exit 2; }
	@$(BIN)/python export/training/train_translator.py --data $(DATA) --output export/checkpoints/demo-en-fr

train-intent: env ## Train demo-intent anew: make train-intent DATA=data_full.json
	@test -n "$(DATA)" || { echo "say where the data is: make $@ DATA=..."; exit 2; }
	@$(BIN)/python export/training/train_intent.py --data $(DATA) --output export/checkpoints/demo-intent

train-captioner: env ## Train demo-scenes anew, on scenes that it draws
	@$(BIN)/python export/training/train_captioner.py --output export/checkpoints/demo-scenes

evaluate: $(CHECKPOINTS:%=$(EVALUATED)/.%.exported) ## Measure checkpoints and packages: make evaluate DATA="fra-eng.zip data_full.json"
	@$(BIN)/python export/training/evaluate.py --data $(DATA) --models $(EVALUATED)

$(EVALUATED)/.%.exported: $(READY) $$(wildcard export/checkpoints/$$*/*) $(wildcard export/regard_export/*.py export/regard_export/*/*.py)
	@mkdir -p $(EVALUATED)
	@$(BIN)/regard-export export/checkpoints/$* --output $(EVALUATED) --overwrite
	@$(BIN)/regard-export export/checkpoints/$* --output $(EVALUATED) --overwrite --name $*-int8 --precision int8
	@$(BIN)/regard-export export/checkpoints/$* --output $(EVALUATED) --overwrite --name $*-int8-token --precision int8 \
		--activation-scale token
	@touch $@

clean: ## Remove what the other targets made, but not .venv nor packages of your own
	@rm -rf build demo dist $(CHECKPOINTS:%=$(MODELS)/%) $(CHECKPOINTS:%=$(MODELS)/.%.exported)
	@rm -rf .mypy_cache .pytest_cache .ruff_cache
	@rmdir $(MODELS) 2>/dev/null || true
