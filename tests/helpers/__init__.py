"""What several tests share; `tests/` is on the path of pytest (pyproject.toml)."""
