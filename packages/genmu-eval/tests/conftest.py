import csv
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from genmu_eval.testing import table_of

settings.register_profile(
    "genmu", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("genmu")

IMAGES = {"fgt": 20, "ret": 380, "adj": 60, "ind": 20, "adv": 20}
"""Images per concept and axis of the published table: its rates are whole multiples of one over these."""


@pytest.fixture(scope="session")
def published():
    """Return concept -> {axis: rate, "err": …} of Table 2 of MapRoute++ (arXiv 2608.13478)."""
    with (Path(__file__).parent / "maproute_pp.csv").open(newline="") as file:
        return {row.pop("concept"): {k: float(v) for k, v in row.items()} for row in csv.DictReader(file)}


@pytest.fixture(scope="session")
def published_rows(published):
    return table_of(published, IMAGES)
