"""Tests: they mirror the package, `golden/` and `reports/` beside it."""
