# Two commands, nothing before them: `make demo` and `make test`.
ifneq ($(shell id -u),0)
# root leaves no files in a folder that is not its own
SUDO := sudo --preserve-env=GPUPROV_TRANSCRIPTS,PIP_CERT,PIP_CONFIG_FILE,PIP_INDEX_URL,PIP_EXTRA_INDEX_URL,PIP_FIND_LINKS,PIP_PROXY,SSL_CERT_FILE,http_proxy,https_proxy,no_proxy \
	env PYTHONDONTWRITEBYTECODE=1 PYTEST_ADDOPTS="-p no:cacheprovider" HYPOTHESIS_STORAGE_DIRECTORY=/var/cache/gpuprov/hypothesis
endif
PYTEST := $(SUDO) .venv/bin/python -m pytest

.PHONY: help demo test test-all prove-stack lint types floors bench lock lab-down clean

help:
	@echo "make demo      a rehearsal fleet of 4 hosts: provision, verify, train, report"
	@echo "make test      the test suite"
	@echo "make test-all  the suite with its slow parts"
	@echo "make prove-stack  the real driver and toolkit on a booted host (8 GB; -k test_stack: 8 min, all: longer)"
	@echo "make bench     gpuprov against its peers (long)"
	@echo "make lab-down  end the rehearsal fleet"
	@echo "make clean     remove what make left here"
	@echo "make lock      choose the locked versions of dependencies anew"

demo:
	@tools/setup.sh demo
	@tools/demo.sh $(ARGS)

test:
	@tools/setup.sh test
	@$(MAKE) --no-print-directory lint types floors
	@$(if $(ARGS),$(PYTEST),$(SUDO) .venv/bin/python tools/halves.py) -m "not slow" $(ARGS)

test-all:
	@tools/setup.sh test
	@$(PYTEST) -m "not stack" $(ARGS)

prove-stack:
	@tools/setup.sh test
	@GPUPROV_TRANSCRIPTS=$${GPUPROV_TRANSCRIPTS:-$(CURDIR)/transcripts} && export GPUPROV_TRANSCRIPTS && \
		$(PYTEST) -m stack -x -s tests/booted $(ARGS)

lint:
	@.venv/bin/ruff format --check -q .
	@.venv/bin/ruff check -q .

types:
	@.venv/bin/mypy

floors:
	@PYTHONPATH=. .venv/bin/lint-imports --no-cache >/dev/null || PYTHONPATH=. .venv/bin/lint-imports --no-cache

bench:
	@tools/setup.sh test
	@$(SUDO) benchmarks/run.sh

lock:
	@tools/lock.sh --upgrade

lab-down:
	@$(SUDO) .venv/bin/gpuprov lab down

clean:
	@[ ! -x .venv/bin/gpuprov ] || $(MAKE) --no-print-directory lab-down
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
