"""The queue port's contract on a real Pulsar."""

from __future__ import annotations

import pytest

from tests.integration.pulsar_service import NAMESPACE, PulsarHarness, service
from tracardi_lite.testing.queue_suite import QueueSuite

pytestmark = pytest.mark.integration


@pytest.fixture(scope="session")
def pulsar() -> dict[str, str]:
    return service("start", "pulsar")


class TestPulsar(QueueSuite):
    topic = f"persistent://tracardi/{NAMESPACE}/functions-"

    @pytest.fixture
    def harness(self, pulsar: dict[str, str]) -> PulsarHarness:
        return PulsarHarness(pulsar)
