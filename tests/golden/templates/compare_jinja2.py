#!/usr/bin/env python3
"""Compares our Jinja interpreter with Python's jinja2 on random input, byte for byte.

    compare_jinja2.py --tool build/dev/template_render [--templates DIR] [--conversations N]
                      [--snippets N] [--seed N]

Templates: every *.jinja in DIR with random conversations (system, several turns, tools, tool calls,
reasoning, None content, parts, many scripts). Snippets: random expressions and small templates.
An error must be an error on both sides; its class is compared too and differences are counted.
Prints the counts and some of the differences.
"""
import argparse
import collections
import datetime
import glob
import json
import os
import random
import subprocess
import sys
import warnings

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

FIXED = datetime.datetime(2024, 7, 26, 12, 0, 0)


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_run"), [], [], body).set_lineno(line)

    def _run(self, caller):
        return caller()


def environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                          sort_keys=sort_keys)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                        extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = FIXED.strftime
    return env


ENV = environment()
CACHE = {}


def python_render(source, variables):
    try:
        if source not in CACHE:
            CACHE[source] = ENV.from_string(source)
        return {"output": CACHE[source].render(**variables)}
    except jinja2.exceptions.SecurityError as e:
        return {"error": "security", "message": str(e)}
    except jinja2.exceptions.UndefinedError as e:
        return {"error": "undefined", "message": str(e)}
    except jinja2.exceptions.TemplateSyntaxError as e:
        return {"error": "syntax", "message": str(e)}
    except jinja2.exceptions.TemplateRuntimeError as e:
        return {"error": "value", "message": str(e)}
    except jinja2.exceptions.TemplateError as e:
        return {"error": "raised", "message": str(e)}
    except (TypeError, AttributeError) as e:
        return {"error": "type", "message": str(e)}
    except RecursionError as e:
        return {"error": "limit", "message": str(e)}
    except Exception as e:
        return {"error": "value", "message": type(e).__name__ + ": " + str(e)}


TEXTS = ["Hello", "  padded  ", "你好，世界", "Réponds en français", "🦙🦙 emoji 👩‍👩‍👧", "line1\nline2\n\nline4",
         "<b>&amp;</b> \"quoted\" 'single'", "", " ", "\n", "tab\tand \\ backslash", "ÀÉÎ ß ǆ ﬁ Σίσυφος",
         "<think>\nreasoning here\n</think>\n\nthe answer", "</think>only close", "<think>only open",
         "<tool_response>x</tool_response>", "{\"json\": [1, 2.5, null]}", "{{ not jinja }} {% raw %}",
         "a" * 300, "русский текст", "عربى", "\u200b\u00a0zero width", "1234567890", "x\r\ny"]
NAMES = ["get_weather", "add", "search-web", "名前", "f"]


def random_json(rng, depth=0):
    kind = rng.randrange(9 if depth < 3 else 6)
    if kind == 0:
        return rng.choice([None, True, False])
    if kind == 1:
        return rng.choice([0, 1, -7, 42, 10**6, 2**53, -2**40])
    if kind == 2:
        return rng.choice([0.5, -1.25, 1e-7, 1e22, 3.14159, 100.0, 1e16, 123456789.123])
    if kind < 6:
        return rng.choice(TEXTS)
    if kind == 6:
        return [random_json(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice(["a", "b", "items", "type", "key é", "x y", "name"]): random_json(rng, depth + 1)
            for _ in range(rng.randrange(4))}


def random_schema(rng, depth=0):
    kind = rng.choice(["string", "integer", "number", "boolean", "array", "object"] if depth < 2 else ["string"])
    schema = {"type": rng.choice([kind, [kind, "null"]]) if rng.random() < 0.15 else kind}
    if rng.random() < 0.7:
        schema["description"] = rng.choice(TEXTS)
    if kind == "string" and rng.random() < 0.3:
        schema["enum"] = ["c", "f", "k"][: rng.randrange(1, 4)]
    if kind == "array":
        schema["items"] = random_schema(rng, depth + 1)
    if kind == "object":
        schema["properties"] = {rng.choice(["x", "y", "z"]): random_schema(rng, depth + 1)
                                for _ in range(rng.randrange(3))}
        if rng.random() < 0.5:
            schema["required"] = list(schema["properties"])
    if rng.random() < 0.1:
        schema["default"] = random_json(rng)
    return schema


def random_tool(rng):
    function = {"name": rng.choice(NAMES)}
    if rng.random() < 0.9:
        function["description"] = rng.choice(TEXTS)
    if rng.random() < 0.95:
        function["parameters"] = {
            "type": "object",
            "properties": {rng.choice(["city", "unit", "n", "query"]): random_schema(rng)
                           for _ in range(rng.randrange(4))}}
        if rng.random() < 0.7:
            function["parameters"]["required"] = list(function["parameters"]["properties"])[:1]
    if rng.random() < 0.1:
        function["return"] = {"type": "string", "description": "result"}
    return {"type": "function", "function": function}


def random_content(rng):
    draw = rng.random()
    if draw < 0.06:
        return [{"type": "text", "text": rng.choice(TEXTS)} for _ in range(rng.randrange(1, 3))]
    if draw < 0.08:
        return [{"type": "image"}, {"type": "text", "text": rng.choice(TEXTS)}]
    return rng.choice(TEXTS) if draw < 0.8 else " ".join(rng.choices(TEXTS, k=3))


def random_call(rng):
    arguments = {rng.choice(["city", "n", "deep", "é"]): random_json(rng) for _ in range(rng.randrange(4))}
    call = {"type": "function", "function": {
        "name": rng.choice(NAMES),
        "arguments": arguments if rng.random() < 0.7 else json.dumps(arguments, ensure_ascii=False)}}
    if rng.random() < 0.8:
        call["id"] = rng.choice(["call12345", "call_abcdefgh", "000000001"])
    return call


def random_conversation(rng):
    messages = []
    if rng.random() < 0.5:
        messages.append({"role": rng.choice(["system"] * 5 + ["developer"]), "content": random_content(rng)})
    for _ in range(rng.randrange(1, 5)):
        messages.append({"role": "user", "content": random_content(rng)})
        if rng.random() < 0.35:
            call = {"role": "assistant", "tool_calls": [random_call(rng) for _ in range(rng.choice([1, 1, 1, 2]))]}
            draw = rng.random()
            if draw < 0.4:
                call["content"] = None
            elif draw < 0.9:
                call["content"] = rng.choice(["", "Let me see."])
            messages.append(call)
            for made in call["tool_calls"]:
                result = {"role": "tool", "content": rng.choice(TEXTS + ["22C"])}
                if rng.random() < 0.7:
                    result["name"] = made["function"]["name"]
                if "id" in made:
                    result["tool_call_id"] = made["id"]
                messages.append(result)
        if rng.random() < 0.8:
            reply = {"role": "assistant", "content": random_content(rng)}
            if rng.random() < 0.3:
                reply[rng.choice(["reasoning_content", "thinking"])] = rng.choice(TEXTS)
            messages.append(reply)
    if rng.random() < 0.05:
        rng.shuffle(messages)
    if messages[-1]["role"] == "assistant" and rng.random() < 0.7:
        messages.append({"role": "user", "content": rng.choice(TEXTS)})
    variables = {"messages": messages, "add_generation_prompt": rng.random() < 0.8,
                 "bos_token": rng.choice(["<s>", "", "<|begin▁of▁text|>"]), "eos_token": rng.choice(["</s>", ""])}
    draw = rng.random()
    if draw < 0.45:
        variables["tools"] = [random_tool(rng) for _ in range(rng.randrange(1, 4))]
    elif draw < 0.75:
        variables["tools"] = None
    for name, values in {"enable_thinking": [True, False], "thinking": [True, False],
                         "date_string": ["26 Jul 2024"], "reasoning_effort": ["low", "high"],
                         "builtin_tools": [["brave_search", "code_interpreter"]],
                         "tools_in_user_message": [True, False], "documents": [None, [{"title": "T", "text": "D"}]],
                         "functions": ["[]"], "datetime": ["now"], "xml_tools": [[]]}.items():
        if rng.random() < 0.2:
            variables[name] = rng.choice(values)
    return variables


CONTEXT = {
    "a": 1, "b": 2.5, "t": True, "f": False, "n": None, "s": "Hello World", "e": "", "u": "héllo ✓ ß",
    "l": [3, 1, 2], "el": [], "d": {"x": 1, "y": [1, 2], "z": {"k": "v"}}, "neg": -7, "q": "it's \"q\" <b>&",
    "ml": "a\nb\n\n c", "big": 2**40, "fl": [1.5, -0.0, 1e300, 1e-9], "sl": ["b", "A", "c", "a", "B"],
    "msgs": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}, {"role": "user", "content": "bye"}],
    "nested": {"items": [1, 2], "get": "G", "keys": 3}, "mixed": [1, "1", 1.0, True, None, [1], {"k": 1}],
    "words": "the quick-brown (fox) jumps\tover\nlazy  dogs", "num": "  42 ", "pct": "%s and %d", "cur": "{} {0}"}

ATOMS = list(CONTEXT) + ["zz", "1", "0", "-3", "2.5", "1e3", "'abc'", "'a,b,c'", "' x '", "[]", "[1, 'b', none]", "{}",
                         "{'a': 1, 'b': [2]}", "(1, 2)", "true", "none", "range(4)", "'é'", "'%05.2f'", "'{:>6}'", "'\\n'",
                         "loop", "namespace(v=1)", "dict(a=1)", "d.x", "d['y']", "msgs[0].role", "nested['items']",
                         "s[1:4]", "l[::-1]", "u[-3:]", "msgs[1:]", "words.split()", "d.items()", "d.keys()", "zz.foo", "n.foo",
                         "10000000000000000000", "'abc' 'def'", "0x1F", "1_000"]
FILTERS = ["upper", "lower", "title", "capitalize", "trim", "length", "count", "list", "first", "last", "sort", "reverse",
           "unique", "sum", "max", "min", "join", "join(', ')", "join('-', attribute='role')", "default('D')", "d('D', true)",
           "int", "float", "int(5)", "float(1.5)", "abs", "round", "round(1)", "round(1, 'floor')", "round(0, 'ceil')", "string",
           "tojson", "tojson(indent=2)", "tojson(sort_keys=true)", "tojson(ensure_ascii=true)", "tojson(separators=(',', ':'))",
           "replace('l', 'L')", "replace('', '-')", "replace('o', '0', 1)", "indent", "indent(2, true)", "indent(2, blank=true)",
           "indent('> ')", "wordcount", "truncate(5)", "truncate(5, true)", "truncate(8, false, '..', 0)", "center(20)", "urlencode", "escape", "e", "safe", "forceescape",
           "striptags", "filesizeformat", "filesizeformat(true)", "batch(2)|list", "batch(2, 'x')|list", "slice(2)|list", "slice(3, 'x')|list",
           "dictsort", "dictsort(true)", "dictsort(by='value')", "dictsort(reverse=true)", "items|list", "map('upper')|list",
           "map(attribute='role')|list", "map(attribute='zz', default='-')|list", "map('string')|join('|')", "map('length')|list", "select|list",
           "select('string')|list", "select('gt', 1)|list", "reject('odd')|list", "selectattr('role')|list",
           "selectattr('role', 'equalto', 'user')|list", "rejectattr('role', 'eq', 'user')|map(attribute='content')|list",
           "selectattr('x', 'defined')|list", "groupby('role')", "groupby(0)|list", "sort(reverse=true)", "sort(case_sensitive=true)",
           "sort(attribute='content')", "sort(attribute='role,content')", "unique(case_sensitive=true)|list", "unique(attribute='role')|list",
           "max(attribute='content')", "sum(attribute='x')", "sum(start=10)", "format(1, 2)", "attr('x')", "attr('items')", "trim('H')"]
TESTS = ["defined", "undefined", "none", "boolean", "true", "false", "integer", "float", "number", "string", "mapping", "sequence",
         "iterable", "callable", "odd", "even", "divisibleby 3", "divisibleby(2)", "eq 1", "equalto('a')", "ne 1", "lt 3", "le 2", "gt 1",
         "ge 1", "in [1, 'a', none]", "in 'abc'", "sameas none", "upper", "lower", "escaped", "filter", "test", "greaterthan 2", "lessthan(2)"]
METHODS = ["upper()", "lower()", "title()", "capitalize()", "swapcase()", "casefold()", "strip()", "lstrip('H')", "rstrip('d l')", "split()", "split('o')",
           "split(',', 1)", "rsplit('o', 1)", "rsplit(none, 1)", "split(maxsplit=1)", "rsplit()", "splitlines()", "splitlines(true)", "partition('o')", "rpartition('o')",
           "find('o')", "rfind('o')", "find('o', 5)", "index('l')", "rindex('l')", "count('l')", "count('')", "startswith('He')", "startswith(('x', 'H'))",
           "endswith('d')", "endswith('')", "replace('l', 'L')", "replace('l', 'L', 1)", "join(['a', 'b'])", "join(sl)", "join(l)", "center(20)", "center(15, '*')",
           "ljust(14)", "rjust(14, '.')", "zfill(14)", "expandtabs()", "isalpha()", "isalnum()", "isdigit()", "isdecimal()", "isnumeric()", "isspace()",
           "islower()", "isupper()", "istitle()", "isidentifier()", "isascii()", "isprintable()", "removeprefix('He')", "removesuffix('ld')", "format(1, 2, x=3)",
           "items()|list", "keys()|list", "values()|list", "get('x')", "get('nope', 5)", "index(1)", "count(1)", "append(1)", "update({})", "pop()", "copy()", "nope()", "__class__"]
BINARY = ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or"]
FORMATS = ["'%s' % {0}", "'%r|%s' % ({0}, {1})", "'%d' % {0}", "'%5.1f|' % {0}", "'%x' % {0}", "'%-6s|' % {0}", "'%(x)s' % {0}", "'%e' % {0}", "'%g' % {0}",
           "'%+d % d' % ({0}, {1})", "'%05d' % {0}", "'%c' % {0}", "'%%' % ()",
           "'{{}}'.format({0})", "'{{0}} {{1}} {{0}}'.format({0}, {1})", "'{{:>8}}|'.format({0})", "'{{:.2f}}'.format({0})", "'{{:,}}'.format({0})", "'{{:05d}}'.format({0})",
           "'{{x}}'.format(x={0})", "'{{0[x]}}'.format({0})", "'{{0.x}}'.format({0})", "'{{!r:>10}}'.format({0})", "'{{:^9}}|'.format({0})", "'{{:x}}'.format({0})", "'{{:e}}'.format({0})", "'{{:g}}'.format({0})", "'{{:%}}'.format({0})"]


def random_expression(rng, depth=0):
    kind = rng.random()
    if depth > 3 or kind < 0.2:
        return rng.choice(ATOMS)
    inner = lambda: random_expression(rng, depth + 1)
    if kind < 0.42:
        return f"{inner()}|{rng.choice(FILTERS)}" if rng.random() < 0.5 else f"({inner()})|{rng.choice(FILTERS)}"
    if kind < 0.5:
        return f"({inner()} is {rng.choice(['', 'not '])}{rng.choice(TESTS)})"
    if kind < 0.58:
        return f"({inner()}).{rng.choice(METHODS)}"
    if kind < 0.72:
        return f"({inner()} {rng.choice(BINARY)} {inner()})"
    if kind < 0.76:
        return f"({inner()} {rng.choice(BINARY)} {inner()} {rng.choice(BINARY)} {inner()})"
    if kind < 0.8:
        return f"({inner()} if {inner()} else {inner()})"
    if kind < 0.82:
        return f"({inner()} if {inner()})"
    if kind < 0.84:
        return f"(not {inner()})"
    if kind < 0.86:
        return f"(-{inner()})"
    if kind < 0.9:
        return f"[{inner()}, {inner()}]"
    if kind < 0.92:
        return f"{{'k': {inner()}, {inner()}: 1}}"
    if kind < 0.95:
        bound = lambda: rng.choice(["", "0", "1", "-1", "2", "-2", "100"])
        return f"({inner()})[{bound()}:{bound()}{rng.choice(['', ':', ':2', ':-1', ':-2'])}]"
    if kind < 0.97:
        return f"({inner()})[{inner()}]"
    return "(" + rng.choice(FORMATS).format(inner(), inner()) + ")"


def random_template(rng, depth=0):
    parts = []
    for _ in range(rng.randrange(1, 4)):
        kind = rng.randrange(14 if depth < 3 else 4)
        m, o = rng.choice(["", "-", "+"]), rng.choice(["", "-"])
        body = lambda: random_template(rng, depth + 1)
        expr = lambda: random_expression(rng, 2)
        var = lambda: rng.choice(["x", "y", "acc"])
        if kind < 2:
            parts.append(rng.choice(["text", "  ", "\n", " \n  ", "é\n", "\t", "\n\n", "  mid "]))
        elif kind < 4:
            parts.append(f"{{{{{o} {rng.choice(['x', 'y', 'acc', 'loop.index', 'a', 's', expr()])} {rng.choice(['', '-'])}}}}}")
        elif kind == 4:
            parts.append(f"{{%{m} if {expr()} {o}%}}{body()}{{%{m} elif {expr()} {o}%}}{body()}{{% else {o}%}}{body()}{{%{m} endif {o}%}}")
        elif kind < 7:
            it = rng.choice(["l", "sl", "el", "d", "d.items()", "msgs", "range(3)", "s[:3]", "zz", "l|map('string')", expr()])
            target = rng.choice(["x", "y", "x, y", "x"]) if it != "d.items()" else "x, y"
            cond = f" if {rng.choice(['x', 'loop', 'not x', expr()])}" if rng.random() < 0.3 else ""
            ctl = rng.choice(["", "", "{% if x == 1 %}{% continue %}{% endif %}", "{% if loop.index > 2 %}{% break %}{% endif %}"])
            loop = rng.choice(["", "{{ loop.index0 }}/{{ loop.length }}", "{{ loop.first }}{{ loop.last }}", "{{ loop.cycle('o', 'e') }}",
                               "{{ loop.previtem }}{{ loop.nextitem }}", "{{ loop.changed(x) }}", "{{ loop.revindex }}{{ loop.depth }}"])
            parts.append(f"{{%{m} for {target} in {it}{cond} {o}%}}{ctl}{loop}{body()}{{% else %}}none{{%{m} endfor {o}%}}")
        elif kind == 7:
            parts.append(f"{{%{m} set {rng.choice(['x', 'y', 'acc', 'x, y'])} = {expr()} {o}%}}")
        elif kind == 8:
            parts.append(f"{{% set {var()} {rng.choice(['', '| upper ', '| trim | title '])}{o}%}}{body()}{{%{m} endset %}}")
        elif kind == 9:
            name = rng.choice(["m1", "m2"])
            args = rng.choice(["", "p", "p, q=2", "p=s", "p, q=p"])
            use = rng.choice([f"{name}()", f"{name}(1)", f"{name}(1, 2)", f"{name}(p=3)", f"{name}(q=4, p=5)", f"{name}(1, 2, 3)", f"{name}(zz=1)"])
            inner = rng.choice(["{{ p }}", "{{ p }}{{ q }}", "{{ varargs }}{{ kwargs }}", "{{ caller() if caller else 'nc' }}", "{{ x }}{{ a }}"])
            parts.append(f"{{% macro {name}({args}) {o}%}}{inner}{body()}{{%{m} endmacro {o}%}}{{{{ {use} }}}}")
        elif kind == 10:
            parts.append(f"{{% macro w(k=1) %}}[{{{{ caller(k) }}}}]{{% endmacro %}}{{% call{rng.choice(['', '(x)'])} w() {o}%}}{body()}{{% endcall %}}")
        elif kind == 11:
            parts.append(f"{{% filter {rng.choice(['upper', 'trim', 'replace(1, 2)', 'indent', 'trim|title'])} {o}%}}{body()}{{%{m} endfilter %}}")
        elif kind == 12:
            parts.append(f"{{% with x = {expr()}, y = {rng.choice(['x', '2'])} {o}%}}{body()}{{% endwith %}}")
        else:
            parts.append(rng.choice(["{# c #}", "{#- c -#}\n", "{% raw %} {{ x }} {% endraw %}", "{%- raw -%} r {%- endraw -%}", "  {# c #}\n",
                                     "{% set ns = namespace(v=0) %}{% for i in l %}{% set ns.v = ns.v + i %}{% endfor %}{{ ns.v }}",
                                     "{% generation %}" + "g{% set x = 5 %}" + "{% endgeneration %}"]))
    return "".join(parts)


# Printed addresses and objects that only Python has.
UNSTABLE = (" at 0x", "<generator", "<bound method", "<built-in", "<function", "<class", "<Macro", "<list_reverseiterator", "reverseiterator object",
            "<LoopContext", "jinja2.", "AsyncLoop", "str_ascii_iterator")

# jinja2 folds slices of constant numbers to undefined, and looks at constant dicts before they are
# reached; dict views are no sets in ours; integers end at 127 bits.
KNOWN = ("object is not subscriptable", "'dict_keys' and", "and 'dict_keys'", "'dict_items' and", "and 'dict_items'", "integer too large", "__class__", "unhashable type: 'slice'")


class Tool:
    def __init__(self, path):
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")

    def render(self, source, variables):
        self.process.stdin.write(json.dumps({"template": source, "variables": variables}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def main():
    warnings.simplefilter("ignore", SyntaxWarning)
    parser = argparse.ArgumentParser()
    parser.add_argument("--tool", required=True)
    parser.add_argument("--templates", default=os.environ.get("DSCTL_TEST_SHARED", "") + "/data/chat_templates")
    parser.add_argument("--conversations", type=int, default=200, help="per template")
    parser.add_argument("--snippets", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    tool = Tool(options.tool)
    counts = collections.Counter()
    shown = collections.Counter()

    def check(kind, source, variables):
        ours = tool.render(source, variables)
        theirs = python_render(source, variables)
        counts[kind] += 1
        if kind != "template" and "output" in theirs and any(mark in theirs["output"] for mark in UNSTABLE):
            counts[kind + " skipped"] += 1
            return
        if "output" in theirs and theirs.get("output") == ours.get("output"):
            counts[kind + " same text"] += 1
            return
        if "error" in theirs and "error" in ours:
            counts[kind + " same error"] += 1
            if theirs["error"] != ours["error"]:
                counts[f"{kind} error {theirs['error']} but ours {ours['error']}"] += 1
                if shown["class"] < 15:
                    shown["class"] += 1
                    print("CLASS", repr(source)[:300], theirs, ours, sep="\n   ")
            return
        if kind != "template" and (any(known in str(ours.get("message")) for known in KNOWN)
                                   or "unhashable type" in str(theirs.get("message"))):
            counts[kind + " known difference"] += 1
            return
        counts[kind + " DIFFERENT"] += 1
        if shown[kind] < 12:
            shown[kind] += 1
            print("DIFFERENT", kind, repr(source)[:600] if kind != "template" else source[:80])
            if kind == "template":
                print("   variables", json.dumps(variables, ensure_ascii=False)[:1500])
            print("   jinja2", theirs, "\n   ours  ", ours)

    for path in sorted(glob.glob(os.path.join(options.templates, "*.jinja"))):
        source = open(path, encoding="utf-8", newline="").read()
        for _ in range(options.conversations):
            check("template", source, random_conversation(rng))
    for _ in range(options.snippets):
        if rng.random() < 0.6:
            check("expression", "{{ " + random_expression(rng) + " }}", CONTEXT)
        else:
            check("snippet", random_template(rng), CONTEXT)
        CACHE.clear()
    for name, count in sorted(counts.items()):
        print(f"{count:8d}  {name}")
    # Snippets can print what has no fixed text (a generator's address and its words): one in a
    # thousand may differ for that. Templates may not.
    different = counts["expression DIFFERENT"] + counts["snippet DIFFERENT"]
    sys.exit(1 if counts["template DIFFERENT"] or different > options.snippets / 1000 else 0)


main()
