"""Honest models that look odd: none is flagged."""

from collections.abc import Iterator

import pytest
from sandboxed import bubblewrap_runs

from bench.exploits import Court, Exhibit, open_court, read_corpus

pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(not bubblewrap_runs(), reason="bubblewrap cannot run here")

HONEST = read_corpus("honest")
#: Those that come nearest to what is flagged; `make stress` tries all.
ODDEST = {"bfloat16", "mixture_of_experts", "recurrent"}
NAMES = [model.name for model in HONEST]


@pytest.fixture(scope="module")
def court() -> Iterator[Court]:
    with open_court() as court:
        yield court


@pytest.mark.parametrize(
    "model", [model for model in HONEST if model.name in ODDEST], ids=lambda model: model.name
)
def test_an_honest_model_is_measured(court: Court, model: Exhibit) -> None:
    report = court.try_exhibit(model)
    assert (report.outcome, report.left) == ("measured", []), report


@pytest.mark.stress
@pytest.mark.parametrize("model", HONEST, ids=NAMES)
def test_an_honest_model_is_never_flagged_in_20_runs(court: Court, model: Exhibit) -> None:
    for seed in range(20):
        report = court.try_exhibit(model, seed)
        assert (report.outcome, report.left) == ("measured", []), report
