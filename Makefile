# `make demo` and `make test` install what they need and run; everything else builds on `.venv`.
.PHONY: demo test soak lint bench clean

demo:
	@scripts/setup run
	@scripts/demo

test:
	@scripts/setup test
	.venv/bin/python -m pytest -n 2

# As many attachments and killed controllers as a release deserves, and all that tests make up at random made up anew
# (KPROBES_SEED=N, which a failure names, makes the same up again; with `make test` too): some minutes.
MADE_UP = $(shell grep -rlE "from seeds import|from hypothesis import" --include="test_*.py" tests)
soak:
	@scripts/setup test
	KPROBES_CHURN_ROUNDS=1000 KPROBES_KILLS=200 .venv/bin/python -m pytest --timeout 1200 tests/live/process/test_churn.py
	KPROBES_SEED=$${KPROBES_SEED:-random} .venv/bin/python -m pytest $(MADE_UP)

lint:
	@scripts/setup test
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

bench:
	@scripts/setup bench
	.venv/bin/python -m bench

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
