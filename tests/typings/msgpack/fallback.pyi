"""msgpack in pure Python: what a machine without the C extension gets."""

from msgpack import Packer as Packer
from msgpack import Unpacker as Unpacker
from msgpack import unpackb as unpackb
