# Fuseline: `make` says what there is. Needs git, make and Python 3.11; everything else goes into .venv.

LOCK ?= all
FUSELINE_HOME ?= $(CURDIR)

VENV := $(CURDIR)/.venv
BIN := $(VENV)/bin
STAMP := .venv/.installed-$(LOCK)
LOCKS := all encoder gpu spark
COMPILE = "$(BIN)/uv" pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-emit-index-url \
  --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade)
PACKAGES := pipelines serving expectations benchmarks

export FUSELINE_HOME
export BENTOML_HOME ?= $(FUSELINE_HOME)/var/bentoml
export PATH := $(BIN):$(PATH)
# TF-Recommenders needs Keras 2 (the encoder's child process unsets it); TensorFlow's notices are not ours to show.
export TF_USE_LEGACY_KERAS := 1
export TF_CPP_MIN_LOG_LEVEL ?= 2
# Compiled modules are kept, or each of the many short processes compiles TensorFlow's Python again.
unexport PYTHONDONTWRITEBYTECODE
# Nothing phones home.
export BENTOML_DO_NOT_TRACK := True
export DVC_NO_ANALYTICS := 1
export GX_ANALYTICS_ENABLED := False
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true

.PHONY: help env demo test test-exhaustive serve airflow lint lock clean
.DEFAULT_GOAL := help

help:  ## this list
	@echo "Fuseline. Targets:"
	@sed -n 's/^\([a-z]*\):.*  ## \(.*\)/  make \1\t\2/p' $(CURDIR)/Makefile | expand -t 16
	@echo "Settings: PORT=3000 (serve), 8080 (airflow), LOCK=all|gpu|spark (env), PYTHON=python3.11, FUSELINE_HOME=$(FUSELINE_HOME)"

env: $(STAMP)  ## environment .venv from the locked requirements; does nothing when it is there

# The stamp comes last, so that an interrupted installation is carried on by the next call.
$(STAMP): requirements/$(LOCK).txt pyproject.toml pipelines/native/_kernels.c
	@rm -f .venv/.installed-*
	@python=$$(sh requirements/find_python.sh "$(PYTHON)") || exit 2; \
	if ! [ -f .venv/.made ] || ! "$(BIN)/python" -c pass 2>/dev/null; then \
	  echo "env: making .venv with $$python"; \
	  rm -rf .venv && "$$python" -m venv .venv || { echo "env: $$python cannot make environments; install its venv module (Debian: apt install python3.11-venv)" >&2; exit 2; }; \
	  touch .venv/.made; \
	fi
	@"$(BIN)/python" -c "import uv" 2>/dev/null || "$(BIN)/python" -m pip install -qq --disable-pip-version-check --no-deps "$$(grep '^uv==' requirements/all.txt)"
	@echo "env: installing requirements/$(LOCK).txt"
	@"$(BIN)/uv" pip sync --quiet --python "$(BIN)/python" requirements/$(LOCK).txt \
	  || { echo "env: uv could not; trying pip, which knows indexes that are set up for pip alone"; \
	       "$(BIN)/python" -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/$(LOCK).txt; }
	@"$(BIN)/uv" pip install --quiet --python "$(BIN)/python" --offline --no-deps --no-build-isolation --config-settings editable_mode=compat --editable .
	@"$(BIN)/python" -c "from pipelines import native; native.kernels or print('env: searches take twice as long: compiled loops are', native.state)"
	@touch $(STAMP)
	@echo "env: ready; use it with \`source .venv/bin/activate\`"

demo: env  ## whole pipeline on the shipped data, promotion, metrics, one answer of the packaged service; SHOP=esci_us searches
	@if [ -n "$(SHOP)" ]; then \
	  folder=$$("$(BIN)/fuseline" sample "$(SHOP)") || exit $$?; \
	  cd "$$folder" && export FUSELINE_HOME="$$folder" BENTOML_HOME="$$folder/var/bentoml" && echo "demo: in $$folder"; \
	fi; \
	"$(BIN)/python" -m pipelines doctor && "$(BIN)/dvc" repro || exit $$?; \
	status=0; "$(BIN)/python" -m pipelines promote || status=$$?; "$(BIN)/python" -m pipelines.demo || status=$$?; exit $$status

serve: PORT ?= 3000
serve: env  ## answer requests with the champion on http://127.0.0.1:3000, or PORT=...
	@[ -n "$$FUSELINE_BUNDLE" ] || [ -f "$(FUSELINE_HOME)/var/champion/current.json" ] || \
	  { echo "serve: there is no champion yet; next: run \`make demo\`, or \`dvc repro\` and \`fuseline promote\`" >&2; exit 1; }
	@exec "$(BIN)/python" -m pipelines.foreground "$(BIN)/bentoml" serve serving.service:Fuseline --host 127.0.0.1 --port $(PORT)

airflow: PORT ?= 8080
airflow: env  ## Airflow with the DAGs of dags/ on http://127.0.0.1:8080, or PORT=...
	@exec "$(BIN)/python" -m pipelines.foreground "$(BIN)/python" -m pipelines.airflow_server --port $(PORT)

test: env  ## lint, then the whole test suite
	@status=0; $(MAKE) --no-print-directory lint || status=$$?; "$(BIN)/pytest" -n logical --maxprocesses 4 --dist worksteal || status=$$?; exit $$status

test-exhaustive: env  ## the suites that take minutes each, and properties with new examples, beside `make test`
	@"$(BIN)/pytest" -m "exhaustive or hypothesis" --hypothesis-profile=searching

lint: env  ## ruff, mypy (strict), import-linter
	@"$(BIN)/ruff" check .
	@"$(BIN)/ruff" format --check .
	@"$(BIN)/mypy"
	@"$(BIN)/lint-imports"

lock: env  ## resolve requirements/*.txt again from pyproject.toml and serving.in; UPGRADE=1 takes newer versions
	@for role in $(LOCKS); do \
	  echo "lock: $$role"; \
	  $(COMPILE) --overrides requirements/overrides.txt pyproject.toml --extra $$role -o requirements/$$role.txt || exit 1; \
	done
	@echo "lock: serving"
	@$(COMPILE) --overrides requirements/serving_overrides.txt --constraints requirements/all.txt requirements/serving.in -o requirements/serving.txt

clean:  ## remove artifacts and caches; .venv and var/ (events, models, champion) stay
	rm -rf artifacts build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find $(PACKAGES) dags tests -type d -name __pycache__ -prune -exec rm -rf {} +
