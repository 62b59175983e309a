"""The parts of `tierline.testing.conformance`: what every ledger must do, by subject."""
