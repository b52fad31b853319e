import struct
import zlib

import pytest
from hypothesis import settings

settings.register_profile("core", deadline=None, max_examples=60)
settings.load_profile("core")


@pytest.fixture
def png():
    """Return a function from a colour (r, g, b) to the bytes of a 1x1 PNG, written from the PNG standard."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    def make(r=0, g=0, b=0):
        head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
        body = zlib.compress(bytes([0, r, g, b]))
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")

    return make
