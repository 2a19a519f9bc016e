"""The list of tensors in a GGUF header: what each is, and that its numbers lie where they must."""

import msgspec

from stellwerk.engines.gguf_reader import HeaderReader, InvalidGguf

_MAX_NAME = 63
_MAX_DIMENSIONS = 4
_MAX_SIDE = 1 << 40
_MIN_ALIGNMENT, _MAX_ALIGNMENT = 32, 1 << 16
"""llama.cpp aborts on tensors that are not aligned to 32 bytes."""

# By GGUF's number of the type: how many weights form a block, and its bytes. Types that only exist while a model
# computes are not among them.
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84),
    11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 16: (256, 66), 17: (256, 74), 18: (256, 98),
    19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136), 29: (256, 56), 30: (1, 2),
    34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18),
}  # fmt: skip
_INTEGERS = {24: 1, 25: 2, 26: 4, 27: 8}
_TABLES = ("tid2eid",)
"""Parts of the names of the tensors that hold integers. As weights, llama.cpp would read them past their end."""
_FULL = 0
"""Type of everything that is added: biases, norms and vectors of all kinds are taken in full precision only."""
_ADDED = (".bias", "token_types.weight")


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    shape: tuple[int, ...]
    kind: int
    """GGUF's number of its type."""

    @property
    def elements(self) -> int:
        count = 1
        for side in self.shape:
            count *= side
        return count


def read_tensors(reader: HeaderReader, count: int, alignment: object) -> dict[str, Tensor]:
    """By name. Raises InvalidGguf unless they stand one behind the other, as llama.cpp wants them, all in the file.

    `alignment` is the value of the key; the reader stands before the first tensor.
    """
    step = _checked(alignment)
    tensors: dict[str, Tensor] = {}
    end = 0
    for _ in range(count):
        name = reader.text(_MAX_NAME)
        tensor, offset = _read(reader)
        if name in tensors:
            raise InvalidGguf("a tensor stands in it twice")
        if offset != end:
            raise InvalidGguf("a tensor is not where the one before it ends")
        tensors[name] = tensor
        end += -(-_bytes(name, tensor) // step) * step
        if end > reader.size + step:
            raise InvalidGguf("it is incomplete: a tensor lies past the end of the file")
    begin = -(-reader.position // step) * step
    if tensors:
        name, tensor = next(reversed(tensors.items()))
        size = _bytes(name, tensor)
        # The padding behind the last one may be missing.
        if begin + end - (-size % step) > reader.size:
            raise InvalidGguf("it is incomplete: a tensor lies past the end of the file")
    return tensors


def _checked(alignment: object) -> int:
    if not isinstance(alignment, int) or not _MIN_ALIGNMENT <= alignment <= _MAX_ALIGNMENT or alignment & alignment - 1:
        raise InvalidGguf("its alignment is impossible")
    return alignment


def _read(reader: HeaderReader) -> tuple[Tensor, int]:
    """A tensor and its offset."""
    dimensions = reader.uint32()
    if dimensions > _MAX_DIMENSIONS:
        raise InvalidGguf("a tensor has too many dimensions")
    shape = tuple(reader.uint64() for _ in range(dimensions))
    kind = reader.uint32()
    if not all(0 < side <= _MAX_SIDE for side in shape):
        raise InvalidGguf("a tensor has an impossible size")
    return Tensor(shape=shape, kind=kind), reader.uint64()


def _bytes(name: str, tensor: Tensor) -> int:
    block, size = _BLOCKS.get(tensor.kind, (1, 0))
    if not size and any(part in name for part in _TABLES):
        size = _INTEGERS.get(tensor.kind, 0)
    if not size:
        raise InvalidGguf("a tensor has a type that no weights have")
    if tensor.kind != _FULL and tensor.kind in _BLOCKS and (len(tensor.shape) < 2 or name.endswith(_ADDED)):
        raise InvalidGguf("a vector has a type that only matrices have")
    row = tensor.shape[0] if tensor.shape else 1
    if row % block:
        raise InvalidGguf("a tensor does not consist of whole blocks")
    return tensor.elements // block * size
