"""A support desk: the example app of Tierline."""
