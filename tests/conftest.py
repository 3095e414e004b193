"""What all tests share: the seed of a run, and hypothesis's profile.

A run's seed is printed in the header and can be given again by ``TEST_SEED``: what is random in an acceptance test
(when to kill, what to send) comes from it, so that a red run can be repeated as far as the kernel's timing allows.
"""

from __future__ import annotations

import os
import secrets
import zlib

import pytest
from hypothesis import HealthCheck, settings

# A loaded two-core machine is slow at random: deadlines per example would report that, not bugs.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")

_SEED = int(os.environ.get("TEST_SEED") or secrets.randbits(32))


def pytest_report_header() -> str:
    return f"seed: TEST_SEED={_SEED}"


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The run's seed, made different for each test by its name; also on standard output, for a failure's report."""
    value = _SEED ^ zlib.crc32(request.node.nodeid.encode())
    print(f"TEST_SEED={_SEED} gives {request.node.name} the seed {value}")
    return value
