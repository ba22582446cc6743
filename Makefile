# `make demo` and `make test` install what they need and run; everything else builds on `.venv`.
.PHONY: demo test lint bench clean

demo:
	@scripts/setup run
	@scripts/demo

test:
	@scripts/setup test
	.venv/bin/python -m pytest

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
