"""`python -m launcher`: the same as the console script (msrun starts Python programs)."""

import sys

from launcher.cli import main

if __name__ == "__main__":
    sys.exit(main())
