from __future__ import annotations

import subprocess
import sys

import pytest

from limbeck import contract
from limbeck.methods import METHODS, resolve


@pytest.mark.parametrize("check", contract.CHECKS)
@pytest.mark.parametrize("slug", METHODS)
def test_every_method_keeps_the_contract(slug, check):
    contract.CHECKS[check](resolve(slug))
