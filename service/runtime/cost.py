"""What a request costs, known before the work is done: the one model that every endpoint uses.

The units are those of the work: elements of JSON and decoded megapixels. Each gives seconds of one
core and the most memory that is held at a time, both from above, for a core of about 2020. A pool
(``service.runtime.resources``) corrects the seconds by what the work before has taken.
"""

from typing import NamedTuple

from contract.pictures import Header


class Cost(NamedTuple):
    """Seconds of one core, and bytes of memory at the peak."""

    seconds: float
    bytes: int


# Parsing and checking: a number takes some 0.07 µs, an array of its own 0.7 µs, and a name in an
# object, which may be an unknown one to report, 5 µs.
ELEMENTS_OF_ARRAY = 10
ELEMENTS_OF_NAME = 100
SECONDS_OF_ELEMENT = 1e-7
# The parser's tree, and then Python's objects: 70 for a number, 1,900 for an array of one.
BYTES_OF_ELEMENT = 200


def json_elements(body: bytes | bytearray) -> int:
    """The elements of a JSON document, from above, by counting its signs: 1 ms for a megabyte.

    An array counts as ``ELEMENTS_OF_ARRAY`` numbers, a name in an object as ``ELEMENTS_OF_NAME``;
    the comma after it is one of them. Names without a comma are nested ones, of which no parser
    takes many.
    """
    commas = body.count(b",")
    arrays = body.count(b"[") + body.count(b"{")
    names = min(commas, body.count(b":"))
    return commas + (ELEMENTS_OF_ARRAY - 1) * arrays + (ELEMENTS_OF_NAME - 1) * names


def json_cost(elements: int) -> Cost:
    """The cost of parsing so many elements of JSON, and of turning them into arrays."""
    return Cost(elements * SECONDS_OF_ELEMENT, elements * BYTES_OF_ELEMENT)


# Of an RGB PNG of 8 bits; ``Header.megapixels`` counts others in these.
SECONDS_OF_MEGAPIXEL = 0.04
# A picture that takes longer to decode is large: it waits in a pool of its own.
PHOTO_SECONDS = 0.1


def picture_cost(header: Header, side: int) -> Cost:
    """The cost of decoding a picture, of which only the head was read, to ``side`` × ``side``."""
    return Cost(header.megapixels(side) * SECONDS_OF_MEGAPIXEL, header.memory(side))
