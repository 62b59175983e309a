"""Where state is kept outside of this process: one connection to it, for all parts."""
