"""JPEG and PNG as containers: their segments and chunks, walked without decoding a pixel.

Pillow keeps and interprets all metadata when it opens a file, on the event loop, and some takes
it long: headers of frames 0.14 s and 86 MB for each megabyte of a JPEG, a PNG's profile of a
kilobyte that unpacks to a megabyte 0.6 ms. A file of 16 MB may hold nothing else. ``lean`` leaves
out what the pixels don't need.
"""

import struct
import zlib
from collections.abc import Iterator

from contract.errors import PictureDamaged, PictureTooLarge

Content = bytes | bytearray | memoryview

# A file may consist of empty blocks, each of which costs some microseconds of Python: 16 MiB of
# them take 8 s to open. A 12-megapixel photo takes 60 reads, a PNG in small chunks thousands.
MAX_READS = 10_000
MAX_CHUNKS = 30_000  # of a WebP, whose frames have two or three
TOO_MANY_READS = "The file has too many small blocks; save the picture again"
# A smaller JPEG, or head of one, is opened as it is.
HEAD_BYTES = 64 * 1024
# A smaller PNG has room for few chunks that unpack to a megabyte each, and is opened as it is.
SMALL_PNG_BYTES = 8 * 1024
# Camera makers' profiles have some kilobytes, those of printers up to two megabytes.
LARGEST_PROFILE = 4 * 1024 * 1024
# Of a PNG they are packed, and a packed stream may take 100 ns a byte, whatever it unpacks to.
LARGEST_PACKED_PROFILE = 256 * 1024
# A segment has less than 64 KiB, and so no run of this byte that is longer is part of one.
FILL = b"\xff"
LONGEST_FILL = 64 * 1024

EXIF_ORIENTATION = 0x0112
MOST_TAGS = 1000  # looked at for it

START_OF_SCAN = 0xDA
# No markers, or ones without a length, as Pillow and libjpeg see them.
ALONE = {0x00, 0x01, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE), 0xFF}
# Tables, and the header of the frame.
NEEDED = {*range(0xC0, 0xD0), 0xDB, 0xDD}
# The marker and the first four bytes of other segments that are kept: one of each, and the profile.
ONCE = {b"\xe0JFIF", b"\xe1Exif", b"\xe2MPF\0", b"\xeeAdob"}
PROFILE = b"\xe2ICC_"


def lean(content: Content, kind: str | None) -> Content:
    """A picture of ``kind`` without metadata that takes long to read; mostly ``content`` itself.

    What remains of the metadata is: of a JPEG the first EXIF block, the list of further pictures
    and the profile, if that is of a sensible size; of a PNG all but packed texts, repeated profiles
    and large ones.
    Raises PictureTooLarge if the tables alone are too large, PictureDamaged if there are no pixels.
    """
    if kind == "JPEG" and len(content) > HEAD_BYTES:
        return _lean_jpeg(bytes(content))
    if kind == "PNG" and len(content) > SMALL_PNG_BYTES:
        return _lean_png(content)
    return content


def _lean_jpeg(whole: bytes) -> bytes:
    whole = _with_short_fills(whole)
    segments = list(jpeg_segments(whole))
    if not segments or segments[-1][0] != START_OF_SCAN:
        raise PictureDamaged("The JPEG file is damaged and not readable")
    starts = [start for _, start, _ in segments]
    # Where anything stands between the segments, Pillow may see others than these.
    adjoining = starts == [2, *(end for _, _, end in segments[:-1])]
    if adjoining and starts[-1] <= HEAD_BYTES:
        return whole
    tables = profile = 0
    kept: list[memoryview] = []
    profiles: list[memoryview] = []
    seen: set[bytes] = set()
    view = memoryview(whole)
    for marker, start, end in segments[:-1]:
        name = whole[start + 1 : start + 2] + whole[start + 4 : start + 8]
        if marker in NEEDED:
            tables += end - start
            kept.append(view[start:end])
        elif name == PROFILE:
            profile += end - start
            profiles.append(view[start:end])
        elif name in ONCE and name not in seen:
            seen.add(name)
            kept.append(view[start:end])
    if tables > HEAD_BYTES:
        raise PictureTooLarge(TOO_MANY_READS)
    if profile > LARGEST_PROFILE:
        profiles.clear()
    return b"".join((view[:2], *profiles, *kept, view[starts[-1] :]))


def _with_short_fills(whole: bytes) -> bytes:
    """The same JPEG with fewer fill bytes before its markers, of which there may be any number.

    Pillow's reader begins anew at the first of them with each 64 KiB that it reads: 16 MB take 2 s.
    """
    fill, view, at = FILL * LONGEST_FILL, memoryview(whole), 0
    kept: list[memoryview] = []
    while (start := whole.find(fill + fill, at)) >= 0:
        kept.append(view[at : start + LONGEST_FILL])
        at = start + 2 * LONGEST_FILL
        while whole.startswith(fill, at):
            at += LONGEST_FILL
    return b"".join((*kept, view[at:])) if kept else whole


def _lean_png(content: Content) -> Content:
    view = memoryview(content)
    chunks = list(png_chunks(view))
    texts = {start for name, start, _ in chunks if name in {b"iTXt", b"zTXt"}}
    profiles = [(start, end - start) for name, start, end in chunks if name == b"iCCP"]
    kept = {start for start, size in profiles[:1] if size <= LARGEST_PACKED_PROFILE}
    dropped = texts | {start for start, _ in profiles if start not in kept}
    return _without(view, chunks, dropped) if dropped else content


def jpeg_segments(whole: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment of a JPEG, to the first scan's header.

    Raises PictureTooLarge after ``MAX_READS`` of them.
    """
    position = 2
    for _ in range(MAX_READS):
        position = whole.find(b"\xff", position)
        if position < 0 or position + 4 > len(whole):
            return
        marker = whole[position + 1]
        size = int.from_bytes(whole[position + 2 : position + 4])  # with its own two bytes
        if marker in ALONE or size < 2:
            position += 1 if marker == 0xFF else 2
            continue
        end = position + 2 + size
        yield marker, position, end
        if marker == START_OF_SCAN:
            return
        position = end
    raise PictureTooLarge(TOO_MANY_READS)


def check_webp(content: Content) -> None:
    """Raise PictureTooLarge if a WebP has over ``MAX_CHUNKS`` chunks, those of frames among them.

    Its reader takes note of each at once, and lets nothing else run meanwhile.
    """
    if len(content) < 8 * MAX_CHUNKS:
        return
    position = 12
    for _ in range(MAX_CHUNKS):
        if position + 8 > len(content):
            return
        size = int.from_bytes(content[position + 4 : position + 8], "little")
        # A frame's chunks come after its place and its time, in 16 bytes.
        inside = content[position : position + 4] == b"ANMF"
        position += 24 if inside else 8 + size + size % 2
    raise PictureTooLarge(TOO_MANY_READS)


def _is_frame(marker: int) -> bool:
    return 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}


def jpeg_scans(content: Content) -> int:
    """Scans of a JPEG whose coefficients are kept until the last; 0 if it has one scan of all
    channels, which needs no more memory than its rows.
    """
    whole = bytes(content)
    channels, progressive = 0, False
    for marker, start, end in jpeg_segments(whole):
        if _is_frame(marker) and start + 10 <= len(whole):
            channels, progressive = whole[start + 9], marker & 3 == 2
        if marker == START_OF_SCAN and end <= len(whole):
            if not progressive and whole[start + 4] >= channels:
                return 0
            break
    return whole.count(b"\xff\xda")


def is_other_jpeg(content: Content) -> bool:
    """Is it a JPEG of other than 8 bits, or of other than 1, 3 or 4 channels?"""
    whole = bytes(content)
    for marker, start, _ in jpeg_segments(whole):
        if _is_frame(marker) and start + 10 <= len(whole):
            return whole[start + 4] != 8 or whole[start + 9] not in {1, 3, 4}
    return False


def without_metadata(content: Content) -> bytes | None:
    """A JPEG without its EXIF, XMP and list of further pictures, which may be damaged; None if it
    has none.
    """
    whole = bytes(content)
    dropped = [
        (start, end) for marker, start, end in jpeg_segments(whole) if marker in {0xE1, 0xE2}
    ]
    if not dropped:
        return None
    starts = [0, *(end for _, end in dropped)]
    ends = [*(start for start, _ in dropped), len(whole)]
    return b"".join(whole[start:end] for start, end in zip(starts, ends, strict=True))


def png_chunks(view: memoryview) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each chunk of a PNG that is there whole."""
    position = 8
    for _ in range(MAX_READS):
        end = position + 12 + int.from_bytes(view[position : position + 4])
        if end > len(view):
            return
        yield bytes(view[position + 4 : position + 8]), position, end
        position = end


def without_bad_chunks(content: Content) -> bytes | None:
    """A PNG without the ancillary chunks whose checksum is wrong; None if there are none.

    Ancillary ones, whose name begins with a small letter, aren't needed to show a picture.
    """
    view = memoryview(content)
    chunks = list(png_chunks(view))
    bad = {
        start
        for name, start, end in chunks
        if name[:1].islower()
        and zlib.crc32(view[start + 4 : end - 4]) != int.from_bytes(view[end - 4 : end])
    }
    return _without(view, chunks, bad) if bad else None


def _without(view: memoryview, chunks: list[tuple[bytes, int, int]], dropped: set[int]) -> bytes:
    """A PNG without the chunks that start at ``dropped``; what follows the last one stays."""
    kept = [view[start:end] for _, start, end in chunks if start not in dropped]
    return b"".join((view[:8], *kept, view[chunks[-1][2] :]))


def orientation(exif: bytes) -> int:
    """How a picture with this EXIF block is to be turned, 1 to 8; 1, upright, where that is damaged
    or doesn't say.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (at,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, at)
        for entry in range(at + 2, at + 2 + 12 * min(count, MOST_TAGS), 12):
            tag, kind = struct.unpack_from(f"{order}HH", tiff, entry)
            if tag == EXIF_ORIENTATION:
                form = {1: "B", 3: "H", 4: "I"}.get(kind)
                if form is None:
                    return 1
                (value,) = struct.unpack_from(f"{order}{form}", tiff, entry + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:  # damaged EXIF is common, and no reason to refuse the picture
        pass
    return 1
