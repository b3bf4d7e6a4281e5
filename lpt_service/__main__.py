"""`python -m lpt_service` is `lptd`."""

import sys

from lpt_service.cli import main

if __name__ == "__main__":
    sys.exit(main())
