# SPDX-License-Identifier: BSD-2-Clause
"""Damage BPF object files in ways that a parser is likely to trip over.

Bytes flipped at random mostly hit machine code and debug strings, which nobody checks. So a
Mutator first notes where the numbers of an object are that steer a loader (headers, symbols,
relocations, BTF records) and then damages some of those. The same object and seed always give
the same mutant.

    python mutate.py prog.bpf.o 1234 > mutant.o
"""

from __future__ import annotations

import random
import struct
import sys
from typing import Literal

# Numbers at which sizes, offsets and indexes overflow, wrap or change their meaning.
INTERESTING = (
    *(0, 1, 2, 3, 4, 7, 8, 9, 12, 16, 24, 31, 32, 33, 63, 64, 255, 256, 4095, 4096, 65535, 65536),
    *(0xFF00, 0xFFF1, 0xFFF2, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFF8),
    *(0xFFFFFFFF, 0x100000000, 0x7FFFFFFFFFFFFFFF, 0x8000000000000000, 0xFFFFFFFFFFFFFFF8),
    0xFFFFFFFFFFFFFFFF,
)
WORDS = (b"", b"0", b"0:0", b"0:-1", b"0:-99999999", b"0:99999", b":0", b"0:", b"-7", b"%s%n")

SHT_SYMTAB, SHT_STRTAB, SHT_NOBITS, SHT_REL = 2, 3, 8, 9
SHF_EXECINSTR = 4
KINDS = 20  # BTF kinds: 0 to 19
FUNC_PROTO, DATASEC = 13, 15
# BTF kind -> 32-bit words that follow the three of every type, fixed and for each of its vlen
BTF_EXTRA = {1: (1, 0), 3: (3, 0), 4: (0, 3), 5: (0, 3), 6: (0, 2), FUNC_PROTO: (0, 2)}
BTF_EXTRA |= {14: (1, 0), DATASEC: (0, 3), 17: (1, 0), 19: (0, 3)}


class Mutator:
    """The fields of one object, by kind, and the means to damage them."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        # group -> (offset, width) of each field; a group is chosen first, so that the few fields
        # of a header are hit as often as the many of the symbol table
        self.fields: dict[str, list[tuple[int, int]]] = {}
        self.strings: list[tuple[int, int]] = []
        self.types = 0
        self.byteorder: Literal["little", "big"] = "big" if data[5:6] == b"\2" else "little"
        self.order = ">" if self.byteorder == "big" else "<"
        self._find_fields()

    def mutate(self, seed: int) -> bytes:
        """Return a damaged copy: mostly one or two fields, sometimes a cut or a splice."""
        rng = random.Random(seed)
        data = bytearray(self.data)
        for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 6))):
            kind = rng.random()
            if kind < 0.82:
                self._damage_field(data, rng)
            elif kind < 0.92:
                self._damage_string(data, rng)
            elif kind < 0.97:
                for _ in range(rng.randint(1, 8)):
                    data[rng.randrange(len(data))] = rng.randrange(256)
            else:
                start = rng.randrange(len(data))
                del data[start : rng.choice((len(data), start + rng.randint(1, 64)))]
                break  # the noted offsets no longer fit
        return bytes(data)

    def _damage_field(self, data: bytearray, rng: random.Random) -> None:
        group = rng.choice(sorted(self.fields))
        offset, width = rng.choice(self.fields[group])
        value = int.from_bytes(data[offset : offset + width], self.byteorder)
        how = rng.randrange(6)
        if how == 0:
            value ^= 1 << rng.randrange(width * 8)
        elif how == 1:
            value = rng.choice(INTERESTING)
        elif how == 2:
            value += rng.choice((-24, -16, -8, -4, -2, -1, 1, 2, 4, 8, 16, 24))
        elif how == 3:  # what another field of the group holds: duplicates, loops, overlaps
            other, other_width = rng.choice(self.fields[group])
            value = int.from_bytes(data[other : other + other_width], self.byteorder)
        elif how == 4:  # an id of some type: wrong kinds, loops
            value = rng.randint(0, self.types + 1)
        elif group == "btf info":
            value = value & ~0x1F000000 | rng.randrange(KINDS + 1) << 24
        else:
            value = rng.getrandbits(width * 8)
        value &= (1 << width * 8) - 1
        data[offset : offset + width] = value.to_bytes(width, self.byteorder)

    def _damage_string(self, data: bytearray, rng: random.Random) -> None:
        if not self.strings:
            return
        offset, size = rng.choice(self.strings)
        start = offset + rng.randrange(size)
        end = data.find(b"\0", start, offset + size)
        how = rng.randrange(3)
        if how == 0:
            data[start] = rng.randrange(256)
        elif how == 1 and end >= 0:  # unterminated, or run together with the next
            data[end] = 0x2E
        else:
            word = rng.choice(WORDS)[: offset + size - start - 1] + b"\0"
            data[start : start + len(word)] = word[: offset + size - start]

    def _find_fields(self) -> None:
        data, order = self.data, self.order
        self._add("elf header", 0, (1,) * 16 + (2, 2, 4, 8, 8, 8, 4, 2, 2, 2, 2, 2, 2))
        (table,) = struct.unpack_from(order + "Q", data, 40)
        count, names_index = struct.unpack_from(order + "2H", data, 60)
        headers = [
            struct.unpack_from(order + "2I4Q2I2Q", data, table + 64 * i) for i in range(count)
        ]
        names = headers[names_index][4]
        for i, (name, kind, flags, _, offset, size, *_) in enumerate(headers):
            text = data[names + name : data.index(b"\0", names + name)]
            if text.startswith((b".debug", b".rel.debug", b".llvm")):
                continue
            self._add("section headers", table + 64 * i, (4, 4, 8, 8, 8, 8, 4, 4, 8, 8))
            if kind == SHT_NOBITS or size == 0:
                continue
            if kind == SHT_SYMTAB:
                self._add("symbols", offset, (4, 1, 1, 2, 8, 8) * (size // 24))
            elif kind == SHT_REL:
                self._add("relocations", offset, (8, 4, 4) * (size // 16))
            elif kind == SHT_STRTAB:
                self.strings.append((offset, size))
            elif text == b".BTF":
                self._find_btf_fields(offset)
            elif text == b".BTF.ext":
                self._add("btf.ext header", offset, (2, 1, 1) + (4,) * 7)
                self._add("btf.ext", offset + 32, (4,) * ((size - 32) // 4))
            elif flags & SHF_EXECINSTR:
                self._add("code", offset, (1, 1, 2, 4) * (size // 8))
            else:
                self._add("contents", offset, (4,) * (size // 4))

    def _find_btf_fields(self, start: int) -> None:
        data, order = self.data, self.order
        self._add("btf header", start, (2, 1, 1, 4, 4, 4, 4, 4))
        header, types, types_size, strings, strings_size = struct.unpack_from(
            order + "5I", data, start + 4
        )
        self.strings.append((start + header + strings, strings_size))
        offset = start + header + types
        end = offset + types_size
        while offset < end:
            (info,) = struct.unpack_from(order + "I", data, offset + 4)
            kind = info >> 24 & 0x1F
            fixed, each = BTF_EXTRA.get(kind, (0, 0))
            extra = fixed + each * (info & 0xFFFF)
            self.types += 1
            self._add("btf info", offset + 4, (4,))
            self._add("btf types", offset, (4,))
            self._add("btf types", offset + 8, (4,) * (1 + extra))
            if kind == DATASEC:
                self._add("btf sections", offset, (4,) * (3 + extra))
            offset += 12 + 4 * extra

    def _add(self, group: str, offset: int, widths: tuple[int, ...]) -> None:
        fields = self.fields.setdefault(group, [])
        for width in widths:
            fields.append((offset, width))
            offset += width


if __name__ == "__main__":
    with open(sys.argv[1], "rb") as file:
        sys.stdout.buffer.write(Mutator(file.read()).mutate(int(sys.argv[2])))
