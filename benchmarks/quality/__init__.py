"""How well tiers are chosen, on public data that is not part of this project: `make quality DATA=DIR`."""
