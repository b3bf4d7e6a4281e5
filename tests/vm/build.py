"""Build the guest, or find it in the cache: `python -m tests.vm.build`. Tests do that too, but without a word."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.vm.host import CACHE, CannotBuildError
from tests.vm.image import operating_system
from tests.vm.payload import make_payload, python_environment


def main() -> None:
    """Build all that is cached."""
    begin = time.monotonic()
    operating_system()
    python_environment()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as work:
        make_payload(Path(folder) / "payload.ext4", Path(work), "")
    print(f"the guest lies in {CACHE}, after {time.monotonic() - begin:.1f} s")


if __name__ == "__main__":
    try:
        main()
    except CannotBuildError as exc:
        sys.exit(f"the guest cannot be built: {exc}")
