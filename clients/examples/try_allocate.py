"""How do I use the port only if nobody else does?

    python3 try_allocate.py lpt://lab-pc/LPT1

`try_allocate` never waits: it fails while anybody owns the port or waits for it. Exit code 75 then.
"""

import sys

from lpt_client import blocking


def main(url: str) -> int:
    with blocking.open_port(url) as port:
        if port.try_allocate() is None:
            owner = port.status()["owner"] or {}
            print(f"busy: {owner.get('client', 'somebody')} has it, {port.waiters()} waiting")
            return 75
        try:
            port.write_data(0x01)
            print("done")
        finally:
            port.free()
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python3 try_allocate.py URL, such as lpt://lab-pc/LPT1")
    sys.exit(main(sys.argv[1]))
