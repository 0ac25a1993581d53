# make demo    a gateway on loopback ports, to try at once
# make test    all tests; live ones where this machine allows, the others are named; one module:
#              .venv/bin/python -m tests.summary tests.smtp.test_server
# make lint    format, style, types, import directions, coverage of the pure modules
# make docs    the manual, in docs/_build
# make bench   the measurements beside Postfix, HAProxy and others (see benchmarks/README.rst)
# make news    what the next version's news will say; make dist, make clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --quiet --disable-pip-version-check

.PHONY: demo test lint docs bench coverage covered news dist clean

$(VENV)/demo.stamp: setup.cfg setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "mailsecure needs Python 3.11 or later: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || { echo "Building $(VENV) (once) ..."; $(PYTHON) -m venv $(VENV); }
	@echo "Installing mailsecure into $(VENV) (once) ..."
	@$(PIP) install --config-settings editable_mode=compat --editable .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/demo.stamp
	@echo "Installing what the tests need into $(VENV) (once) ..."
	@$(PIP) install --config-settings editable_mode=compat --editable '.[dev,docs]'
	@touch $@

demo: $(VENV)/demo.stamp
	@mkdir -p demo-state && chmod 700 demo-state
	@cat etc/demo.txt
	@exec $(BIN)/twistd --nodaemon --pidfile= mailsecure --config etc/demo.ini

test: $(VENV)/dev.stamp
	@$(BIN)/python -m tests.lanes

lint: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) --no-print-directory coverage

# The pure modules (no I/O, no clock) have every branch run by their own tests.
coverage: $(VENV)/dev.stamp
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m twisted.trial --temp-directory=_trial_temp_coverage \
		$$($(BIN)/python -m tests.pure tests) > _coverage.log 2>&1 || { cat _coverage.log; exit 1; }
	@$(MAKE) --no-print-directory covered

# The same of the last run of tests, if it was one with MAILSECURE_COVERAGE set.
covered: $(VENV)/dev.stamp
	@$(BIN)/coverage report --fail-under=100 --include="$$($(BIN)/python -m tests.pure)"

docs: $(VENV)/dev.stamp
	$(BIN)/sphinx-build -q -W -b html docs docs/_build

bench: $(VENV)/dev.stamp
	$(BIN)/python -m benchmarks.accept --quick
	$(BIN)/python -m benchmarks.relay --quick
	$(BIN)/python -m benchmarks.idle
	$(BIN)/python -m benchmarks.failover --quick
	$(BIN)/python -m benchmarks.failover --cpu
	$(BIN)/python -m benchmarks.balance --quick
	$(BIN)/python -m benchmarks.scanning --quick

news: $(VENV)/dev.stamp
	@$(BIN)/towncrier build --draft --version "$$($(BIN)/python -c 'import mailsecure; print(mailsecure.__version__)')"

dist: $(VENV)/dev.stamp
	$(BIN)/python -m build --wheel --sdist .

clean:
	rm -rf $(VENV) .tox build dist *.egg-info docs/_build demo-state _trial_temp* _summary _*.log \
		.coverage .mypy_cache .ruff_cache .import_linter_cache .hypothesis
