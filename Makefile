# Everything that a fresh clone needs: `make demo` and `make test` install what they use.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EXTRAS ?= cpu,export,station,serve
BUNDLE := models/bundle

.PHONY: gpu-check help campaign demo test test-slow lint docs bundle wheel jetson-bundle jetson-lock clean
help:
	@echo "make demo           set up, label the bundled sample video, write demo-flight/"
	@echo "make test           set up, run the fast tests on every core"
	@echo "make test-slow      set up, run the slow tests: real sizes, endurance"
	@echo "make campaign       set up, run what takes minutes each: random faults, the largest towers, browsers"
	@echo "make page-campaign  set up, drive every function of the page in chromium"
	@echo "make lint           ruff, mypy --strict, import-linter"
	@echo "make docs           build the documentation site into site/, strictly"
	@echo "make wheel          a wheel that contains the default model's bundle"
	@echo "make gpu-check      what proves a GPU on a machine without a network, in pieces below 64 MB"
	@echo "make jetson-bundle  archives for boards and laptops without a network"

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/pip install --quiet --group dev --editable ".[$(EXTRAS)]"
	@touch $@

bundle: $(BUNDLE)/manifest.json
LABELS := models/aerial.toml station/demo/demo.toml
$(BUNDLE)/manifest.json: $(VENV)/.ready $(LABELS) $(wildcard models/default/*) $(wildcard export/*.py)
	$(BIN)/overflight export models/default $(BUNDLE) --name overflight-aerial $(addprefix --labels ,$(LABELS)) --replace

demo: bundle
	$(BIN)/overflight demo --out demo-flight --replace

test: bundle
	$(BIN)/pytest -n auto --dist worksteal

# What failed is run once more, alone: a busy machine can fail a timed stream.
test-slow: bundle
	$(BIN)/pytest -m "slow and not campaign" -n 2 --dist worksteal \
	  || $(BIN)/pytest -m "slow and not campaign" --last-failed

# One after the other. `make campaign TESTS=tests/campaign` runs a part; OVERFLIGHT_CAMPAIGN_SEED chooses other faults.
TESTS ?= tests
campaign: bundle
	$(BIN)/pytest -m campaign $(TESTS)

# Every function of the page in the system's chromium, at two widths and in two languages.
page-campaign: bundle
	$(BIN)/pip install --quiet --group browser
	$(BIN)/pytest -s -m campaign tests/station/serve/test_page_campaign.py

$(VENV)/.docs: $(VENV)/.ready
	$(BIN)/pip install --quiet --group docs
	@touch $@

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

lint: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy src tests
	$(BIN)/lint-imports

wheel: bundle
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

# Boards without a network: one archive per machine with every wheel, for Python 3.10 (JetPack 6) and 3.12 (JetPack 7).
jetson-bundle: wheel
	$(BIN)/python jetson/archive.py make $$(ls -t dist/overflight-*.whl | head -1)

# A device without a network: `bench device` with everything it needs, in pieces below 64 MB and a two-line recipe.
# GPU_CHECK="--cpu" leaves CUDA out, "--torch" what PyTorch has brought; "--machine aarch64 --python 3.10" is a board.
gpu-check: wheel
	$(BIN)/python bench/gpu_check.py $$(ls -t dist/overflight-*.whl | head -1) $(GPU_CHECK)

# Resolve the archive's pins again: make jetson-lock PYTHONS="python3.10 python3.12"
jetson-lock: wheel
	$(BIN)/python jetson/archive.py lock $$(ls -t dist/overflight-*.whl | head -1) $(PYTHONS)

clean:
	rm -rf $(VENV) $(BUNDLE) build dist demo-flight site *.egg-info src/*.egg-info
