PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One thread a process: two test processes would otherwise fight for two cores.
export OMP_NUM_THREADS = 1
# Without it scikit-learn's checks leave out those of array libraries.
export SCIPY_ARRAY_API = 1

.PHONY: demo test fast lint install warm

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c "import ensurepip, sys; sys.exit(sys.version_info < (3, 11))" \
		|| { echo "Python 3.11 or newer with venv is needed: install it (Debian: apt-get install python3-venv), or say make PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: install
	rm -rf run
	$(BIN)/poise fit examples/credit.csv --target Status --out run

# Machine code is made once here, not once in every test process.
warm: install
	for dtype in float32 float64; do \
		$(BIN)/python -c "import torch; from poise.fleet.compiled._warm_up import warm_up; warm_up(torch.$$dtype)" & \
	done; wait

test: warm
	$(BIN)/python -m pytest -n 2 --dist worksteal

fast: warm
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
