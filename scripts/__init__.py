"""Tools of those who make Tierline; none is installed with it."""
