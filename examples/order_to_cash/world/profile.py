"""How the services misbehave in the demo."""

from __future__ import annotations

from examples.order_to_cash.world.faults import Faults

LOST_REPLY = 2.5  # seconds: longer than the patience of the clients


def faults_of_the_demo(seed: int) -> dict[str, Faults]:
    """Faults by service."""
    return {
        "crm": Faults(seed=seed, latency=(0.001, 0.01), errors=0.01, lost_replies=0.003, withhold_seconds=LOST_REPLY),
        "erp": Faults(seed=seed, latency=(0.002, 0.02), errors=0.02, lost_replies=0.01, withhold_seconds=LOST_REPLY),
        "payments": Faults(
            seed=seed,
            latency=(0.005, 0.03),
            errors=0.01,
            lost_replies=0.02,
            withhold_seconds=LOST_REPLY,
            requests_per_second=150,
            declined=0.01,
        ),
        "shipping": Faults(
            seed=seed,
            latency=(0.002, 0.02),
            errors=0.03,
            lost_replies=0.01,
            withhold_seconds=LOST_REPLY,
            delivery_seconds=(0.3, 2.0),
            repeated_callbacks=0.15,
        ),
    }
