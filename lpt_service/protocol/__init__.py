"""What is said on the wire: status codes, control codes, structures, messages and their encoding.

This floor touches no socket, file or clock, and runs wherever msgpack does (Python 3.10, any system), because the
clients import it too. `docs/protocol.md` is the contract.
"""
