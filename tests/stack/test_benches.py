"""What the bench needs is there: nobody runs it between two measurements."""

from __future__ import annotations

from apps.protocol.circuits import CLASSES
from apps.protocol.rfm_spec import check_spec, subdao_params
from workers.demo import request

SITES = {
    "label": "malignant",
    "positive": "1",
    "columns": ["a", "b"],
    "strata": {"column": "region", "values": ["north", "south"]},
}


def test_the_network_that_the_bench_sells_is_asked_for_as_one() -> None:
    asked = request.main_request(SITES, custodians=6, validators=3, network=True)
    params = subdao_params(check_spec(asked["spec"]))
    assert CLASSES[params["model_class"]].hidden and params["training"]["kind"] == "secure_sgd"
    plain = request.main_request(SITES, custodians=6, validators=3)
    assert check_spec(plain["spec"])["interpretable"]
