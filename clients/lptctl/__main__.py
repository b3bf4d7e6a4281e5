"""`python -m lptctl` is `lptctl`."""

import sys

from lptctl.cli import main

if __name__ == "__main__":
    sys.exit(main())
