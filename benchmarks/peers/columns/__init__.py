"""The columns of each environment: `opened(world)` gives them, for as long as its block lasts."""
