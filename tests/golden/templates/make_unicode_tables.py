#!/usr/bin/env python3
"""Writes templates/jinja/unicode_tables.cpp from Python's own Unicode database, so that string
methods of templates agree with the Python that chat templates are written for.

    python3 tests/golden/templates/make_unicode_tables.py | clang-format > templates/jinja/unicode_tables.cpp
"""
import sys
import unicodedata

LAST = 0x110000


def ranges(holds):
    found, start = [], None
    for code in range(LAST + 1):
        inside = code < LAST and not 0xD800 <= code <= 0xDFFF and holds(chr(code))
        if inside and start is None:
            start = code
        if not inside and start is not None:
            found.append((start, code - 1))
            start = None
    return found


def mapping(convert):
    """Runs (first, last, step, delta) of one-to-one mappings, and the list of the others."""
    single, special = [], []
    for code in range(LAST):
        if 0xD800 <= code <= 0xDFFF:
            continue
        to = convert(chr(code))
        if to == chr(code):
            continue
        if len(to) == 1:
            single.append((code, ord(to) - code))
        else:
            special.append((code, to))
    runs = []
    for code, delta in single:
        if runs:
            first, last, step, run_delta = runs[-1]
            if run_delta == delta and (code - last == step or (first == last and code - last <= 2)):
                runs[-1] = (first, code, code - last, delta)
                continue
        runs.append((code, code, 1, delta))
    return runs, special


def ignorable(char):
    return unicodedata.category(char) in ("Mn", "Me", "Cf", "Lm", "Sk") or char in "'.:\u00b7\u0387\u055f\u05f4\u2018\u2019\u2024\u2027\ufe13\ufe52\ufe55\uff07\uff0e\uff1a"


def main():
    out = sys.stdout
    out.write(f"// Made by tests/golden/templates/make_unicode_tables.py, Unicode {unicodedata.unidata_version}.\n")
    out.write('#include "templates/jinja/unicode_tables.h"\n\n')
    out.write("namespace dsctl::templates::jinja {\n\n")
    properties = {
        "Alpha": str.isalpha, "Decimal": str.isdecimal, "Digit": str.isdigit,
        "Numeric": str.isnumeric, "Lower": str.islower, "Upper": str.isupper,
        "Title": lambda c: unicodedata.category(c) == "Lt", "Printable": str.isprintable,
        "CaseIgnorable": ignorable,
    }
    for name, holds in properties.items():
        items = ranges(holds)
        out.write(f"const CodeRange k{name}Ranges[] = {{\n")
        out.write(",".join(f"{{{a:#x},{b:#x}}}" for a, b in items))
        out.write("};\n")
        out.write(f"const size_t k{name}Count = {len(items)};\n\n")
    for name, convert in (("ToUpper", str.upper), ("ToLower", lambda c: "σ" if c == "Σ" else c.lower()), ("ToTitle", str.title)):
        runs, special = mapping(convert)
        out.write(f"const CaseRun k{name}Runs[] = {{\n")
        out.write(",".join(f"{{{a:#x},{b:#x},{s},{d}}}" for a, b, s, d in runs))
        out.write(f"}};\nconst size_t k{name}Count = {len(runs)};\n\n")
        out.write(f"const CaseSpecial k{name}Specials[] = {{\n")
        def escape(text):
            return "".join(f"\\x{byte:02x}" for byte in text.encode())
        out.write(",".join(f'{{{c:#x},"{escape(t)}"}}' for c, t in special))
        out.write(f"}};\nconst size_t k{name}SpecialCount = {len(special)};\n\n")
    out.write("}  // namespace dsctl::templates::jinja\n")


main()
