#!/usr/bin/env python3
"""Writes jinja_snippets.json: small templates and what Python's jinja2 makes of them under Hugging
Face's settings, for tests/templates/jinja_test.cpp. Needs jinja2.

    python3 tests/golden/templates/make_jinja_snippets.py > tests/golden/templates/jinja_snippets.json
"""
import datetime
import json

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

CONTEXT = {
    "n": None, "t": True, "one": 1, "s": "Hello World", "u": "héllo ✓ ß", "nums": [3, 1, 2], "empty": [],
    "people": [{"name": "Ann", "age": 31, "tags": ["x"]}, {"name": "bob", "age": 7}, {"name": "Cy", "age": 31}],
    "d": {"b": 1, "a": [1, 2], "items": "I"}, "text": "one\ntwo\n\nthree", "quote": "it's \"q\""}

SNIPPETS = """
{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % -3 }} {{ -7 % 3 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 2 ** -1 }} {{ 2 ** 0.5 }}
{{ 1 / 3 }} {{ 4 / 2 }} {{ 1e16 }} {{ 1e15 }} {{ 0.0001 }} {{ 0.00001 }} {{ 123456789.125 }} {{ -0.0 }} {{ 1e300 * 1e10 }}
{{ 1 + true }} {{ true + true }} {{ 1 == true }} {{ 1.0 == 1 }} {{ 'a' * 3 }} {{ 2 * [1] }} {{ (1,) + (2,) }}
{{ 2 ** 3 ** 2 }} {{ -2 ** 2 }} {{ not t or t }} {{ 1 < 2 == 2 }} {{ 1 if n else 2 if t else 3 }}
{{ 'a' ~ 1 + 2 }} {{ one ~ '-' ~ n ~ 1.0 }} {{ 'x' 'y' "z" }}
{{ 9007199254740993 == 9007199254740992.0 }} {{ 18446744073709551615 + 1 }} {{ -9223372036854775808 - 1 }}
{{ s[0] }}{{ s[-1] }} {{ s[2:5] }} {{ s[::-1] }} {{ s[100:] }}| {{ s[-3:100] }} {{ s[8:2:-2] }} {{ u[1:3] }} {{ u[-1] }}
{{ nums[::2] }} {{ nums[-5:2] }} {{ nums[1] }} {{ nums[9] is defined }} {{ nums.1 }} {{ d['items'] }} {{ d.a[-1] }}
{{ people[0].name }} {{ people[0]['name'] }} {{ people|map(attribute='age')|list }} {{ people|map(attribute='tags.0', default='-')|list }}
{{ people|selectattr('age', 'gt', 10)|map(attribute='name')|join(', ') }} {{ people|rejectattr('tags')|list|length }}
{{ people|groupby('age')|map('first')|list }} {% for age, who in people|groupby('age') %}{{ age }}:{{ who|map(attribute='name')|join('+') }} {% endfor %}
{% for g in people|groupby('age') %}{{ g.grouper }}{{ g.list|length }} {% endfor %}{{ people|sort(attribute='name')|map(attribute='name')|list }}
{{ people|sort(attribute='age,name', reverse=true)|map(attribute='name')|list }} {{ people|sum(attribute='age') }} {{ people|max(attribute='age') }}
{{ ['b', 'A', 'c']|sort }} {{ ['b', 'A', 'c']|sort(case_sensitive=true) }} {{ ['a', 'A', 'b']|unique|list }} {{ d|dictsort }} {{ d|dictsort(reverse=true) }}
{{ [1, 2, 3, 4, 5]|batch(2, '-')|list }} {{ [1, 2, 3, 4, 5]|slice(3)|list }} {{ range(5)|reverse|list }} {{ 'abc'|reverse }} {{ nums|first }} {{ nums|last }}
{{ []|first is undefined }} {{ []|max is undefined }} {{ nums|min }} {{ 'abc'|list }} {{ d|list }} {{ d|length }} {{ {}|length }}
{{ 'a,b,,c'.split(',') }} {{ '  a  b '.split() }} {{ 'a b c'.split(' ', 1) }} {{ 'a b c'.rsplit(none, 1) }} {{ ''.split() }} {{ ''.split(',') }}
{{ 'aXbX'.partition('X') }} {{ 'aXbX'.rpartition('X') }} {{ 'ab'.partition('X') }} {{ 'a\\nb\\r\\nc'.splitlines() }} {{ 'a\\nb'.splitlines(true) }}
{{ ' x '.strip() }}|{{ 'xxaxx'.lstrip('x') }}|{{ 'xyax'.rstrip('xy') }}|{{ '\\u00a0 a'.strip() }}|{{ '<think>'.strip('<>') }}
{{ s.find('o') }} {{ s.rfind('o') }} {{ s.find('z') }} {{ s.count('l') }} {{ s.index('W') }} {{ u.find('✓') }} {{ s.find('o', 5) }} {{ s.find('o', -3) }}
{{ s.startswith('He') }} {{ s.startswith(('x', 'He')) }} {{ s.endswith('ld') }} {{ s.startswith('lo', 3) }} {{ s.removeprefix('He') }} {{ s.removesuffix('x') }}
{{ s.upper() }} {{ s.lower() }} {{ s.swapcase() }} {{ 'they\\'re bill\\'s'.title() }} {{ 'they\\'re bill-x (y'|title }} {{ 'ßx'.upper() }} {{ 'ΑΣ'.lower() }} {{ 'ǆ'.title() }} {{ 'fOO'|capitalize }}
{{ s.replace('l', 'L', 2) }} {{ 'aaa'|replace('a', 'b', 2) }} {{ 'ab'.replace('', '-') }} {{ 12321|replace(2, 'x') }}
{{ 'x'.center(6, '*') }} {{ 'ab'.center(5, '*') }} {{ 'x'.ljust(3) }}| {{ '-5'.zfill(4) }} {{ 'x'.rjust(3, '.') }} {{ 'a\\tb'.expandtabs(4) }} {{ 'x'|center(5) }}|
{{ '12'.isdigit() }} {{ '²'.isdigit() }} {{ '½'.isnumeric() }} {{ 'aé'.isalpha() }} {{ ''.isalpha() }} {{ 'a1'.isalnum() }} {{ ' \\t'.isspace() }} {{ 'Ab Cd'.istitle() }} {{ 'a_1'.isidentifier() }}
{{ '-'.join(['a', 'b']) }} {{ '%s=%d' % ('a', 3) }} {{ '%5.2f|%-5s|%05d|%x|%r' % (3.14159, 'ab', 42, 255, 'q') }} {{ '%(a)s' % {'a': 1} }} {{ '100%%' % () }}
{{ '{} {}'.format(1, 'a') }} {{ '{1} {0}'.format(1, 2) }} {{ '{x!r:>5}'.format(x='a') }} {{ '{:,}'.format(1234567) }} {{ '{:.3f} {:e} {:>6} {:^7}|'.format(2.5, 1234.5, 'x', 'y') }} {{ '{0[a]} {1.b}'.format({'a': 1}, {'b': 2}) }} {{ '{{}}'.format() }}
{{ 3.7|int }} {{ '42'|int }} {{ ' -7 '|int }} {{ '3.9'|int }} {{ 'x'|int(5) }} {{ 'ff'|int(base=16) }} {{ '0x1f'|int(base=16) }} {{ n|int }} {{ '1_0'|int }} {{ '2.5'|float }} {{ 'x'|float }} {{ '1e3'|float }} {{ 'inf'|float }}
{{ 2.5|round }} {{ 3.5|round }} {{ 2.675|round(2) }} {{ 1234.5|round(-2) }} {{ 2.1|round(0, 'ceil') }} {{ 2.19|round(1, 'floor') }} {{ 7|round }} {{ -3|abs }} {{ -2.5|abs }}
{{ d|tojson }} {{ people|tojson(indent=2) }} {{ {'z': 1, 'a': 2}|tojson(sort_keys=true) }} {{ 'é<>&\\'"\\n\\x01\\x7f'|tojson }} {{ 'é🦙'|tojson(ensure_ascii=true) }} {{ [1, (2, 3), none, true, 1e-7, {1: 2, none: 3}]|tojson }} {{ [1, {}]|tojson(separators=(',', ':')) }} {{ [[], {}]|tojson(indent='--') }}
{{ text|indent }}|{{ text|indent(2, first=true) }}|{{ text|indent(2, blank=true) }}|{{ text|indent('> ') }}
{{ s|truncate(5) }} {{ s|truncate(9, leeway=0) }} {{ s|truncate(9, true, leeway=0) }} {{ s|truncate(8, false, '..', 0) }} {{ s|wordcount }} {{ s|urlencode }} {{ {'a b': 'ü/', 'c': 1}|urlencode }}
{{ '<b>&\\'"'|e }} {{ ('<b>'|e) ~ '<i>' }} {{ ('<b>'|e) + '<i>' }} {{ '<b>'|e|e }} {{ '<b>'|e|forceescape }} {{ '<b>'|safe is escaped }} {{ '<p>a  <b>c</b> &lt;</p>'|striptags }} {{ 1000|filesizeformat }} {{ 1536|filesizeformat(true) }} {{ 1|filesizeformat }}
{{ zz|default('D') }} {{ n|default('D') }} {{ n|default('D', true) }} {{ ''|d('E', true) }} {{ zz is defined }} {{ zz|length }} {{ zz|list }} {{ zz|upper }}| {{ zz ~ 'x' }} {{ [zz] }} {{ zz == n }} {{ zz == yy }} {{ 'a' in zz }}
{{ t is true }} {{ one is true }} {{ t is integer }} {{ one is number }} {{ t is number }} {{ 1.0 is float }} {{ s is string }} {{ d is mapping }} {{ nums is sequence }} {{ nums is iterable }} {{ one is iterable }} {{ n is none }} {{ range is callable }} {{ 4 is divisibleby(2) }} {{ 3 is odd }} {{ 'a' is in ['a'] }} {{ 1 is sameas 1 }} {{ 'abc' is lower }} {{ 'upper' is filter }} {{ 'odd' is test }} {{ 1 is not none }} {{ not zz is defined }}
{{ nums|map('string')|map('upper')|join }} {{ nums|select('odd')|list }} {{ nums|reject('gt', 1)|list }} {{ [0, 1, '', 'a']|select|list }} {{ nums|map('multiply') is defined }}
{{ 5|map('upper') is iterable }} {{ (nums|map('upper')) is sequence }} {% if nums|select('gt', 99) %}generators are true{% endif %}
{{ quote }} {{ [quote] }} {{ ['a\\nb\\t\\\\', 'é\\u200b', "it's"] }} {{ {'k': (1,), 2: none} }} {{ d.keys() }} {{ d.items()|list }} {{ range(3) }} {{ range(1, 7, 2) }} {{ range(5, 0, -2)|list }}
{{ d.get('b') }} {{ d.get('zz') }} {{ d.get('zz', 5) }} {{ 'b' in d }} {{ dict(d, z=9).z }} {{ dict([('a', 1)], b=2) }} {{ nums.index(1) }} {{ nums.count(3) }} {{ nums == [3, 1, 2] }} {{ {'a': 1, 'b': 2} == {'b': 2, 'a': 1} }} {{ (1, 2) < (1, 3) }} {{ [1] < [1, 2] }}
{% set x = 1 %}{% for i in nums %}{% set x = i %}{{ x }}{% endfor %}{{ x }}{% if t %}{% set x = 5 %}{% endif %}{{ x }}{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set (c, d2) = [3, 4] %}{{ c }}{{ d2 }}
{% set ns = namespace(n=0, l=[]) %}{% for i in nums %}{% set ns.n = ns.n + i %}{% set ns.l = ns.l + [i] %}{% endfor %}{{ ns.n }} {{ ns.l }} {{ ns.zz is defined }} {{ ns }}
{% for i in nums %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.depth }} {% endfor %}
{% for i in nums if i != 1 %}{{ loop.index }}/{{ loop.length }}:{{ i }}{{ ',' if not loop.last }}{% endfor %}{% for i in [] %}x{% else %}none{% endfor %}{% for i in [1] %}{% continue %}{% else %}else{% endfor %}
{% for i in range(5) %}{% if i == 1 %}{% continue %}{% elif i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}
{% for i in [1, 1, 2] %}{{ loop.cycle('a', 'b') }}{{ loop.changed(i) }} {% endfor %}{% for x in [[1, [2]], 3] recursive %}{{ loop(x) if x is iterable else x }}{{ loop.depth }}{% endfor %}
{% set ns = namespace(stop=false) %}{% for i in nums if not ns.stop %}{{ i }}{% set ns.stop = i == 1 %}{% endfor %}
{% macro m(a, b='x', c=b) %}[{{ a }},{{ b }},{{ c }}]{% endmacro %}{{ m(1) }}{{ m(1, 2) }}{{ m(c=3, a=1) }}{{ m() }}{% macro v() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ v(1, 2, k=3) }}{{ m.name }}{{ m.arguments }}
{% macro w(title) %}<{{ title }}>{{ caller(1) }}</{{ title }}>{% endmacro %}{% call(n2) w('h') %}body {{ n2 }} {{ s }}{% endcall %}{% macro rec(k) %}{{ k }}{{ rec(k - 1) if k }}{% endmacro %}{{ rec(3) }}
{% filter upper|replace('A', '4') %}abc {{ s }}{% endfilter %}{% set b %}x{{ one }}y{% endset %}{{ b|length }}{% set b2 | trim | upper %}  q {% endset %}{{ b2 }}{% with a = 1, b = one %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}
{{ cycler('a', 'b').next() }}{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.current }}{% set j = joiner('|') %}{{ j() }}x{{ j() }}y{{ strftime_now('%d %b %Y %H:%M %A %j %%') }}
{% raw %}{{ x }}{% y %}{% endraw %}{# {{ x }} #}{{ '{{' }}{{ "%}" }}{% print 1, 2 %}{% generation %}g{{ one }}{% endgeneration %}
{{ m(*[1, 2]) }}
{% macro k(a, b) %}{{ a }}{{ b }}{% endmacro %}{{ k(*[1, 2]) }}{{ k(**{'a': 3, 'b': 4}) }}{{ k(1, **{'b': 5}) }}
{{ 1 + 'a' }}
{{ 'a' + 1 }}
{{ [1] + (2,) }}
{{ zz.a }}
{{ zz + 1 }}
{{ zz() }}
{{ s() }}
{{ 1 < 'a' }}
{{ 1 in 5 }}
{{ 1 in 'a' }}
{{ {[]: 1} }}
{{ 1 // 0 }}
{{ 1 / 0 }}
{{ 1 % 0 }}
{{ one|join }}
{{ one|length }}
{{ one[1:] }}
{{ s[1:'x'] }}
{{ zz|tojson }}
{{ nums|map('upper')|tojson }}
{% for a, b in [1] %}{% endfor %}
{% set a, b = [1] %}
{% set s.x = 1 %}
{{ s.split('') }}
{{ '{} {}'.format(1) }}
{{ '%d' % 'a' }}
{{ '%s %s' % 'a' }}
{{ 'a' % 1 }}
{{ range(100001) }}
{{ nums.append(1) }}
{{ raise_exception('No system role!') }}
{% if zz %}{{ 1|nofilter }}{% endif %}ok
{% if t %}{{ 1|nofilter }}{% endif %}
{{ 1 is notest }}
{{ 1|nofilter }}
{% if %}
{% for x %}{% endfor %}
{{ 1 +
{{ (1, 2 }}
{{ 'abc }}
{% endif %}
{% if t %}
{% bogus %}
{% break %}
{{ a b }}
{% set 1 = 2 %}
{{ {1: 2, } }}{{ [1, ] }}{{ (1, ) }}{{ () }}
{# open
""".strip("\n").split("\n")

# White space control: here \\n and the like stand for the characters.
SPACES = """
a\\n  {% if t %}  \\n b\\n  {%- endif -%}  \\n c
  {{ one }}\\n  {%+ if t %}x{% endif +%}\\n\\n{# c #}\\n y
{% if t -%}\\n\\n  a  \\n\\n{%- endif %}\\n\\nb\\n\\n
{{ 1 -}}\\n 2 {{- 3 }}\\n4
\\t {# c -#}  x {#- d #}\\n  {#+ e #}\\nz
x\\r\\ny\\rz\\r\\n
""".strip("\n").split("\n")


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_run"), [], [], body).set_lineno(line)

    def _run(self, caller):
        return caller()


def main():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                        extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = datetime.datetime(2024, 7, 26, 12, 0, 0).strftime
    cases = []
    for source in SNIPPETS + [text.encode().decode("unicode_escape") for text in SPACES]:
        case = {"template": source}
        try:
            case["output"] = env.from_string(source).render(**CONTEXT)
        except Exception as error:
            case["error"] = type(error).__name__
            case["message"] = str(error)
        cases.append(case)
    print(json.dumps({"_provenance": f"made by make_jinja_snippets.py with jinja2 {jinja2.__version__}",
                      "context": CONTEXT, "cases": cases}, ensure_ascii=False, indent=1))


main()
