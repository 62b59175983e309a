"""`python -m tierline.cli`."""

from tierline.cli import main

main()
