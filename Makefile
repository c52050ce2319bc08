# The front door. `make demo` and `make test` are all that a newcomer types.
VENV   ?= .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
OUT    ?= out/demo
EXTRAS := curate,orchestrate,train,text-encoders,dev

.PHONY: setup demo test lint ui bench clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

demo: setup
	$(BIN)/reelmill weights pull samples --into out/samples
	$(BIN)/reelmill curate out/samples --out $(OUT) --policy demo

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup  # a thread a worker: torch with two is four times slower here

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

ui: setup
	$(BIN)/reelmill ui

bench: setup
	$(BIN)/python -m benchmarks

clean:
	rm -rf out .dagster build *.egg-info
