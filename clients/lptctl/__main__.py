"""`python -m lptctl` is `lptctl`."""

import sys

from lpt_service.protocol.libraries import missing_library
from lptctl import signals


def main() -> int:
    """Run lptctl; its exit code."""
    signals.end_at_once()
    try:
        from lptctl import cli

        return cli.main()
    except ImportError as exc:
        said = missing_library(exc, "cert" if exc.name and exc.name.startswith("cryptography") else "cli")
        if said is None:
            raise
        print(f"lptctl: {said}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
