#!/usr/bin/env python3
"""Writes engine/tokenizer/unicode_tables.cpp from the Python package unicodedata2.

Unicode 16.0 is what HF tokenizers 0.23 uses: `compare_hf.py unicode` compares every code point.

    pip install unicodedata2==16.0.0
    python3 make_unicode_tables.py > engine/tokenizer/unicode_tables.cpp
"""
import sys

import unicodedata2 as unicodedata

# General_Category -> name of the flag set in unicode.h. C (other) is 0 and not listed.
NAMES = {
    "Lu": "Lu", "Ll": "Ll", "Lt": "Lt", "Lm": "Lm", "Lo": "Lo",
    "M": "M", "N": "N", "P": "P", "S": "S", "Z": "Z",
}


def name_of(code_point):
    category = unicodedata.category(chr(code_point))
    return NAMES.get(category) or NAMES.get(category[0])


def ranges():
    first, name = 0, name_of(0)
    for code_point in range(1, 0x110001):
        this = name_of(code_point) if code_point < 0x110000 else "end"
        if this != name:
            if name is not None:
                yield first, code_point - 1, name
            first, name = code_point, this


def main():
    if unicodedata.unidata_version != "16.0.0":
        sys.exit(f"unicodedata {unicodedata.unidata_version}, expected 16.0.0")
    entries = [f"{{0x{first:X}, 0x{last:X}, {name}}}," for first, last, name in ranges()]
    print("// Made by tests/golden/tokenizer/make_unicode_tables.py from Unicode 16.0.0: general\n"
          "// categories as inclusive ranges of code points, ascending. Not listed: category C.\n"
          "// clang-format off\n"
          '#include "engine/tokenizer/unicode_tables.h"\n\n'
          "namespace dsctl::engine {\n\n"
          "namespace {\n"
          "using enum Category;\n"
          "}\n\n"
          f"const CategoryRange kCategoryRanges[] = {{")
    line = "   "
    for entry in entries:
        if len(line) + 1 + len(entry) > 100:
            print(line)
            line = "   "
        line += " " + entry
    print(line)
    print("};\n"
          "const int kNumCategoryRanges = static_cast<int>(std::size(kCategoryRanges));\n\n"
          "}  // namespace dsctl::engine")


main()
