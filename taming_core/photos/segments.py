"""The segments of JPEG, PNG and WebP files, to leave out damaged metadata that keeps a decoder from sound pixels."""

import zlib
from collections.abc import Iterator

PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")  # PNG
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
ADOBE = 0xEE  # the JPEG segment that says how colours are stored
VP8X_METADATA = 0b0010_1100  # its flags for colour profile, EXIF and XMP


def less_metadata(data: bytes) -> Iterator[bytes]:
    """The file with EXIF and colour profile as its only metadata, then without any; nothing for other formats."""
    for keep in (True, False):
        if data.startswith(PNG):
            yield PNG + b"".join(_png_chunks(data, keep))
        elif data.startswith(JPEG):
            yield JPEG + b"".join(_jpeg_segments(data, keep))
        elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            body = b"WEBP" + b"".join(_webp_chunks(data, keep))
            yield b"RIFF" + len(body).to_bytes(4, "little") + body


def _png_chunks(data: bytes, keep: bool) -> Iterator[bytes]:
    """Chunks with pixels as they are, and eXIf and iCCP if their checksum holds."""
    start = len(PNG)
    while start + 8 <= len(data):
        length, name = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8]
        end = start + 12 + length
        body, checksum = data[start + 4 : end - 4], data[end - 4 : end]
        is_kept = keep and name in (b"eXIf", b"iCCP") and zlib.crc32(body).to_bytes(4, "big") == checksum
        if name in PIXEL_CHUNKS or is_kept:
            yield data[start:end]
        start = end


def _jpeg_segments(data: bytes, keep: bool) -> Iterator[bytes]:
    """Segments that are no application's and no comment, and those of EXIF, colour profile and Adobe's colours."""
    start = len(JPEG)
    while data[start : start + 1] == b"\xff" and start + 4 <= len(data):
        marker, end = data[start + 1], start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        if marker == 0xDA:  # the pixels follow
            break
        is_metadata = 0xE0 <= marker <= 0xEF or marker == 0xFE
        is_kept = keep and data[start + 4 : end].startswith((b"Exif\0", b"ICC_PROFILE\0"))
        if not is_metadata or marker == ADOBE or is_kept:
            yield data[start:end]
        start = end
    yield data[start:]


def _webp_chunks(data: bytes, keep: bool) -> Iterator[bytes]:
    start, left_out = 12, {b"XMP "} if keep else {b"XMP ", b"EXIF", b"ICCP"}
    while start + 8 <= len(data):
        name, length = data[start : start + 4], int.from_bytes(data[start + 4 : start + 8], "little")
        end = start + 8 + length + length % 2
        if name == b"VP8X" and not keep:
            yield data[start : start + 8] + bytes([data[start + 8] & ~VP8X_METADATA]) + data[start + 9 : end]
        elif name not in left_out and (end <= len(data) or name not in (b"EXIF", b"ICCP")):
            yield data[start:end]
        start = end
