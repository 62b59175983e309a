"""How good a router is, measured: agreement, calibration, quality against cost, each with its interval.

Pure functions of numbers and labels. `tierline eval` and `tierline.testing.assert_quality` stand on them.
"""

from tierline.evaluation.agreement import Agreement, Errors, agreement, priced
from tierline.evaluation.calibration import Bin, expected_calibration_error, reliability
from tierline.evaluation.intervals import Interval, bootstrap, wilson
from tierline.evaluation.scenario import Scenario, read_scenario
from tierline.evaluation.simulation import Simulation, simulate
from tierline.evaluation.strategies import Assumed
from tierline.evaluation.sweep import Point, Sweep, apgr, cost_at, curve

__all__ = [
    "Agreement",
    "Assumed",
    "Bin",
    "Errors",
    "Interval",
    "Point",
    "Scenario",
    "Simulation",
    "Sweep",
    "agreement",
    "apgr",
    "bootstrap",
    "cost_at",
    "curve",
    "expected_calibration_error",
    "priced",
    "read_scenario",
    "reliability",
    "simulate",
    "wilson",
]
