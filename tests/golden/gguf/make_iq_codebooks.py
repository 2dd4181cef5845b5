#!/usr/bin/env python3
"""Writes gguf/quants/iq_codebooks.h from the tables of the specification (iq_tables.json).

usage: make_iq_codebooks.py iq_tables.json > gguf/quants/iq_codebooks.h
"""
import json
import sys

NAMES = [
    ("kIq2XxsCodes", "kgrid_2bit_256", "iq2xxs: 2 bits an element"),
    ("kIq2XsCodes", "kgrid_2bit_512", "iq2xs: 2 bits an element"),
    ("kIq2SCodes", "kgrid_2bit_1024", "iq2s: 2 bits an element"),
    ("kIq3XxsCodes", "kgrid_256", "iq3xxs: 3 bits an element"),
    ("kIq3SCodes", "kgrid_512", "iq3s: 3 bits an element"),
    ("kIq1SCodes", "kgrid_1bit_2048", "iq1s and iq1m: 2 bits an element"),
]


def main() -> None:
    with open(sys.argv[1]) as file:
        tables = json.load(file)
    print("// Codebooks of the IQ formats in compact form, as iq_grids.cpp expands them. Written by")
    print("// tests/golden/gguf/make_iq_codebooks.py; numbers from ggml's ggml-common.h (MIT).")
    print("#pragma once\n\n#include <array>\n#include <cstdint>\n")
    print("namespace dsctl::gguf {\n\n// clang-format off")
    for name, key, comment in NAMES:
        codes = tables[key]
        print(f"/// {comment}.")
        print(f"inline constexpr std::array<uint16_t, {len(codes)}> {name}{{")
        line = "   "
        for code in codes:
            if len(line) + len(str(code)) + 2 > 100:
                print(line)
                line = "   "
            line += f" {code},"
        print(line + "\n};\n")
    print("// clang-format on\n\n}  // namespace dsctl::gguf")


main()
