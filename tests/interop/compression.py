"""Frames of Zstandard (docs/wire.md, "Compression"), read within bounds that are known beforehand."""

import zstandard

from canonical import MAX_PREFIX
from outcome import Refused

MAGIC = bytes.fromhex("28b52ffd")
RAW, RUN, COMPRESSED = 0, 1, 2
MAX_WINDOW_EXPONENT = 21


def _refuse(reason):
    return Refused(f"Compression.{reason}")


def _frame(data):
    """Walks over exactly one frame (RFC 8878, section 3.1.1): its dictionary, the length that it states or `None`, and whether
    no compressed block is empty, which some decoders overlook."""
    at = 0

    def take(count):
        nonlocal at
        if count > len(data) - at:
            raise _refuse("NotOneFrame")
        at += count
        return int.from_bytes(data[at - count : at], "little")

    if data[:4] != MAGIC:
        raise _refuse("NotOneFrame")
    at = 4
    descriptor = take(1)
    if descriptor & 0x08:
        raise _refuse("NotOneFrame")
    single_segment = bool(descriptor & 0x20)
    if not single_segment and take(1) >> 3 > MAX_WINDOW_EXPONENT:
        raise _refuse("NotOneFrame")
    dictionary = take((0, 1, 2, 4)[descriptor & 3])
    size = (1 if single_segment else 0, 2, 4, 8)[descriptor >> 6]
    stated = None
    if size:
        stated = take(size) + (256 if size == 2 else 0)
    last, whole = False, True
    while not last:
        header = take(3)
        last, kind, length = bool(header & 1), header >> 1 & 3, header >> 3
        if kind > COMPRESSED:
            raise _refuse("NotOneFrame")
        whole = whole and not (kind == COMPRESSED and length == 0)
        take(1 if kind == RUN else length)
    if descriptor & 0x04:
        take(4)
    if at != len(data):
        raise _refuse("NotOneFrame")
    return dictionary, stated, whole


def decompress(length, frame, most):
    """What a frame holds: exactly `length` bytes."""
    if length > min(most, MAX_PREFIX):
        raise _refuse("TooLong")
    dictionary, stated, whole = _frame(frame)
    if dictionary != 0:
        raise _refuse("Dictionary")
    if stated not in (None, length):
        raise _refuse("Length")
    if not whole:
        raise _refuse("Damaged")
    reader = zstandard.ZstdDecompressor(max_window_size=2**31).decompressobj()
    # Sixteen bytes are five blocks at most, and a block holds 128 KiB at most: no more than that comes at a time.
    content, at = bytearray(), 0
    try:
        while at < len(frame):
            content += reader.decompress(frame[at : at + 16])
            at += 16
            if len(content) > length:
                raise _refuse("Damaged")
    except zstandard.ZstdError:
        raise _refuse("Damaged") from None
    if not reader.eof:
        raise _refuse("Damaged")
    if len(content) != length:
        raise _refuse("Length" if stated is None else "Damaged")
    return bytes(content)
