"""How many examples the property tests of money play: `usual` in the suite, FLAI_EXAMPLES by hand.

    FLAI_EXAMPLES=50000 python -m pytest -q --hypothesis-seed=1 \\
        tests/protocol/test_ledger_rules.py tests/protocol/test_pool.py \\
        tests/protocol/test_vault.py -k "conserved or History"
"""

import os


def examples(usual: int) -> int:
    return int(os.environ.get("FLAI_EXAMPLES", usual))
