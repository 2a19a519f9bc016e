"""A seeded source of broken inputs: the same seed gives the same inputs."""

import random
from collections.abc import Iterator

NUMBERS = [
    b"0",
    b"1",
    b"-1",
    b"255",
    b"65536",
    b"2147483648",
    b"4294967296",
    b"9223372036854775807",
    b"9" * 30,
    b"0x10",
]
TOKENS = [
    *[b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\0", b" ", b"\t", b":", b",", b";", b"\xff", b"%00", b"/../", b"0\r\n\r\n"],
    *[b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Upgrade: websocket\r\n"],
    *[b"Connection: Upgrade\r\n", b"Host: evil.example\r\n", b"Expect: 100-continue\r\n", b"HTTP/1.1", b"HTTP/1.0"],
]


def mutations(seeds: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    choice = random.Random(seed)
    for _ in range(count):
        data = choice.choice(seeds)
        for _ in range(choice.randint(1, 4)):
            data = mutate(choice, data, seeds)
        yield data[:100_000]


def mutate(choice: random.Random, data: bytes, seeds: list[bytes]) -> bytes:
    if not data:
        return choice.choice(TOKENS)
    at = choice.randrange(len(data))
    to = min(len(data), at + choice.randint(1, 20))
    kind = choice.randrange(9)
    if kind == 0:
        return data[:at] + bytes([data[at] ^ (1 << choice.randrange(8))]) + data[at + 1 :]
    if kind == 1:
        return data[:at] + data[to:]
    if kind == 2:
        return data[:to] + data[at:to] * choice.choice([1, 2, 50]) + data[to:]
    if kind == 3:
        other = choice.choice(seeds)
        return data[:at] + other[choice.randrange(len(other) + 1) :]
    if kind == 4:
        return data + choice.choice(seeds)
    if kind == 5:
        return data[:at] + choice.choice(TOKENS) + data[at:]
    if kind == 6:
        return replace_number(choice, data)
    if kind == 7:
        return shuffle_lines(choice, data)
    return data[:at]


def replace_number(choice: random.Random, data: bytes) -> bytes:
    places = [place for place, byte in enumerate(data[:2000]) if 48 <= byte <= 57]
    if not places:
        return data + choice.choice(NUMBERS)
    place = choice.choice(places)
    return data[:place] + choice.choice(NUMBERS) + data[place + 1 :]


def shuffle_lines(choice: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\r\n")
    one, two = choice.randrange(len(lines)), choice.randrange(len(lines))
    lines[one], lines[two] = lines[two], lines[one]
    return b"\r\n".join(lines)
