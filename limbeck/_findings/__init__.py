"""What can be wrong with a recipe or weak about a finished run: findings with codes, and what each means."""

from __future__ import annotations

from limbeck._findings.catalogue import CATALOGUE, explain
from limbeck._findings.explained import Explained
from limbeck._findings.finding import Finding, Severity, found

__all__ = ["CATALOGUE", "Explained", "Finding", "Severity", "explain", "found"]
