"""What every ledger must do, as tests: inherit from `LedgerConformance` to have them of a ledger of your own.

    class TestMine(LedgerConformance):
        def open_ledger(self, clock, lease):
            return MyLedger(new_database(), clock=clock, lease=lease)

        def open_again(self, ledger, clock, lease):
            return MyLedger(ledger.database, clock=clock, lease=lease)

The tests are plain methods without arguments, for pytest or, with `unittest.TestCase` as a second base, for unittest.
Each runs on an event loop of its own, and closes with `aclose` what it opened. None waits for time: ledgers go by the
`clock` they are given. `test_hypothesis_stateful_vs_model` needs hypothesis.

For readable failures under pytest: `pytest.register_assert_rewrite("tierline.testing")` before it is imported.
"""

from __future__ import annotations

from tierline.testing._ledger import model
from tierline.testing._ledger.competing import Competing
from tierline.testing._ledger.holding import Holding
from tierline.testing._ledger.operating import Operating
from tierline.testing._ledger.passing import Passing


class LedgerConformance(Holding, Passing, Operating, Competing):
    """Every sentence of `tierline.ledger.base.Ledger`, as tests. A subclass says how its ledger is opened.

    `lease` and `remembers` may be set to what the ledger has, `drift`, `herd`, `threads`, `examples` and `steps` lower
    for a slow one.
    """

    def test_hypothesis_stateful_vs_model(self) -> None:
        """Whatever is done in whatever order, the ledger agrees with a model that adds up everything anew."""
        model.play(self)
