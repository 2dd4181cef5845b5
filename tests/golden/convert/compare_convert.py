#!/usr/bin/env python3
"""Compares a GGUF file of ours with one of llama.cpp's convert_hf_to_gguf on the same checkpoint:

    compare_convert.py OURS THEIRS

Prints every difference in metadata (keys, types, values, order) and tensors (names, order, shapes,
types, bytes); says so when the files are the same byte for byte. Exits with 1 on a difference.
Needs Python's gguf."""
import argparse
import filecmp
import sys

import gguf


def value_of(field):
    return [str(t) for t in field.types], field.contents()


def short(value):
    text = repr(value)
    return text if len(text) < 200 else text[:200] + f"... ({len(text)} characters)"


def first_difference(ours, theirs):
    if isinstance(ours, list) and isinstance(theirs, list):
        if len(ours) != len(theirs):
            return f"{len(ours)} elements, expected {len(theirs)}"
        for i, (a, b) in enumerate(zip(ours, theirs)):
            if a != b:
                return f"element {i}: {short(a)}, expected {short(b)}"
    return f"{short(ours)}, expected {short(theirs)}"


def compare(ours, theirs):
    differences = []
    our_fields = {k: f for k, f in ours.fields.items() if not k.startswith("GGUF.")}
    their_fields = {k: f for k, f in theirs.fields.items() if not k.startswith("GGUF.")}
    for key in our_fields.keys() | their_fields.keys():
        if key not in our_fields:
            differences.append(f"{key}: missing, expected {short(value_of(their_fields[key]))}")
        elif key not in their_fields:
            differences.append(f"{key}: {short(value_of(our_fields[key]))}, expected nothing")
        else:
            (our_type, our_value), (their_type, their_value) = map(
                value_of, (our_fields[key], their_fields[key]))
            if our_type != their_type:
                differences.append(f"{key}: type {our_type}, expected {their_type}")
            elif our_value != their_value:
                differences.append(f"{key}: {first_difference(our_value, their_value)}")
    if not differences and list(our_fields) != list(their_fields):
        differences.append("metadata in another order")
    our_tensors = {t.name: t for t in ours.tensors}
    their_tensors = {t.name: t for t in theirs.tensors}
    for name in our_tensors.keys() | their_tensors.keys():
        if name not in our_tensors or name not in their_tensors:
            differences.append(f"tensor {name}: only in "
                               f"{'ours' if name in our_tensors else 'theirs'}")
            continue
        a, b = our_tensors[name], their_tensors[name]
        if list(a.shape) != list(b.shape) or a.tensor_type != b.tensor_type:
            differences.append(f"tensor {name}: {a.tensor_type.name} {list(a.shape)}, expected "
                               f"{b.tensor_type.name} {list(b.shape)}")
        elif a.data.tobytes() != b.data.tobytes():
            x = gguf.quants.dequantize(a.data, a.tensor_type).ravel()
            y = gguf.quants.dequantize(b.data, b.tensor_type).ravel()
            differences.append(f"tensor {name}: {int((x != y).sum())} of {x.size} values differ, "
                               f"by up to {abs(x - y).max()}")
    if list(our_tensors) != list(their_tensors):
        differences.append("tensors in another order")
    return differences


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ours")
    parser.add_argument("theirs")
    arguments = parser.parse_args()
    if filecmp.cmp(arguments.ours, arguments.theirs, shallow=False):
        print("the same byte for byte")
        return
    differences = compare(gguf.GGUFReader(arguments.ours), gguf.GGUFReader(arguments.theirs))
    for difference in sorted(differences):
        print(difference)
    if not differences:
        print("equal, but not byte for byte")
    sys.exit(1 if differences else 0)


if __name__ == "__main__":
    main()
