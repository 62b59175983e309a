"""What an app learns of its routes: how likely each tier is good enough there."""

from tierline.learn.model import OutcomeModel
from tierline.learn.outcomes import Evidence, Outcome, OutcomeStore
from tierline.values import Chance, Forecast

__all__ = ["Chance", "Evidence", "Forecast", "Outcome", "OutcomeModel", "OutcomeStore"]
