// Damaged and hostile templates: an error with a position, soon, and nothing worse.
#include <chrono>
#include <filesystem>
#include <string>

#include "templates/jinja/template.h"
#include "tests/support/catch.h"
#include "tests/support/paths.h"
#include "tests/support/templates_jinja.h"

namespace dsctl::templates::jinja {
namespace {

using tests::render;
using tests::render_error;

std::string repeat(std::string_view text, size_t times) {
  std::string out;
  for (size_t i = 0; i < times; ++i)
    out += text;
  return out;
}

bool has_position(const std::string& message) {
  return message.starts_with("template:");
}

Json small_conversation() {
  return Json::parse(R"({"messages": [{"role": "user", "content": "Hi"},
      {"role": "assistant", "content": "Yo"}, {"role": "user", "content": "Bye"}],
      "add_generation_prompt": true, "bos_token": "<s>", "eos_token": "</s>", "tools": null})");
}

/// Parses, and renders when that worked; true when the outcome is text or a proper error.
bool survives(const std::string& source, bool renders) {
  RenderOptions options;
  options.limits.max_steps = 200'000;
  try {
    const Template parsed(source);
    if (renders) parsed.render(small_conversation(), options);
    return true;
  } catch (const JinjaError& error) {
    return has_position(error.what());
  } catch (const RaisedError&) {
    return true;
  }
}

/// The message of the error under a fiftieth of the usual steps, so that the test is quick.
std::string limited_error(const std::string& source) {
  RenderOptions options;
  options.limits.max_steps /= 50;
  options.limits.max_created_bytes /= 4;
  try {
    Template(source).render(Json::object(), options);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("Jinja survives truncations of the collected templates") {
  if (tests::shared_dir().empty()) {
    WARN("no shared data: skipped");
    return;
  }
  for (const auto& entry :
       std::filesystem::directory_iterator(tests::shared_dir() / "data/chat_templates")) {
    if (entry.path().extension() != ".jinja") continue;
    const std::string source = tests::read_text(entry.path());
    INFO(entry.path().filename());
    // At every byte of the small ones; the large ones take too long for that.
    const size_t stride = source.size() < 2500 ? 1 : 11;
    size_t n_bad = 0;
    for (size_t size = 0; size < source.size(); size += stride) {
      if (!survives(source.substr(0, size), size % 4 == 0)) ++n_bad;
    }
    CHECK(n_bad == 0);
  }
}

TEST_CASE("Jinja survives a lost or changed byte anywhere in a template") {
  const std::string source =
      "{%- set ns = namespace(x=[1, 'a', {'k': 2.5}]) -%}{% for m in messages if m.role != 'x' %}"
      "{{ loop.index0 ~ m['content'][1:]|upper }}{% else %}{# c #}{% endfor %}"
      "{% macro f(a, b=1) %}{{ a is not none and b in [1] }}{% endmacro %}{{ f(1, b=2) }}";
  for (size_t i = 0; i < source.size(); ++i) {
    std::string lost = source;
    lost.erase(i, 1);
    CHECK(survives(lost, true));
    for (const char c : {'\0', '{', '}', '%', '(', '\'', '\\', '-', '\xff', '|', '.', '9'}) {
      std::string changed = source;
      changed[i] = c;
      CHECK(survives(changed, true));
    }
  }
}

TEST_CASE("Jinja refuses deep nesting without using the stack up") {
  constexpr size_t kDepth = 100'000;
  for (const std::string& open :
       {std::string("("), std::string("["), std::string("{'a': "), std::string("not "),
        std::string("-"), std::string("+"), std::string("x["), std::string("x("),
        std::string("x if y else "), std::string("x is in "), std::string("x|join("),
        std::string("1 ** -"), std::string("[*"), std::string("f(a=")}) {
    INFO(open);
    const std::string message = render_error("{{ " + repeat(open, kDepth) + "x }}");
    CHECK(has_position(message));
  }
  for (const std::string& block :
       {std::string("{% if x %}"), std::string("{% for x in y %}"), std::string("{% set x %}"),
        std::string("{% macro m() %}"), std::string("{% call m() %}"),
        std::string("{% filter upper %}"), std::string("{% with %}"),
        std::string("{% generation %}"), std::string("{% if x %}{% else %}")}) {
    INFO(block);
    CHECK(has_position(render_error(repeat(block, kDepth))));
  }
  CHECK(has_position(render_error("{% set " + repeat("(", kDepth) + "x = 1 %}")));
}

TEST_CASE("Jinja refuses endless chains and allows long ones") {
  for (const std::string& link :
       {std::string(".a"), std::string("[0]"), std::string("()"), std::string("|upper"),
        std::string(" is defined"), std::string(" + 1"), std::string(" or x"),
        std::string(" and x"), std::string(" * 2"), std::string(" if x")}) {
    INFO(link);
    CHECK(has_position(render_error("{{ x" + repeat(link, 100'000) + " }}")));
  }
  CHECK(render("{{ 1" + repeat(" + 1", 300) + " }}") == "301");
  CHECK(render("{{ 'x'" + repeat(" ~ 'x'", 5000) + " }}") == repeat("x", 5001));
  CHECK(render("{% if x %}" + repeat("{% elif x %}", 5000) + "{% else %}y{% endif %}") == "y");
  CHECK(render("{{ [" + repeat("1, ", 5000) + "]|length }}") == "5000");
}

TEST_CASE("Jinja bounds recursion") {
  CHECK(render("{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}"
               "{{ f(60)|length }}") == "112");
  CHECK(has_position(render_error("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}")));
  CHECK(
      has_position(render_error("{% macro f() %}{% call f() %}{% endcall %}{% endmacro %}"
                                "{{ f() }}")));
  CHECK(has_position(render_error("{% for x in [1] recursive %}{{ loop([x]) }}{% endfor %}")));
}

TEST_CASE("Jinja bounds time, text and sizes") {
  const char* const kSources[] = {
      "{{ 'a' * 1000000000000 }}",
      "{{ [0] * 1000000000000 }}",
      "{{ (1, 2) * 99999999999999999999 }}",
      "{{ range(1000000000)|list }}",
      "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
      "{% for i in range(100000) %}{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaa' * 10000 }}{% endfor %}",
      "{% set ns = namespace(s='ab') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}"
      "{% endfor %}",
      "{% set ns = namespace(s='ab') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}"
      "{% endfor %}",
      "{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}"
      "{% endfor %}",
      "{% set ns = namespace(s=[1]) %}{% for i in range(150) %}{% set ns.s = [ns.s, ns.s] %}"
      "{% endfor %}{{ ns.s }}",
      "{% set ns = namespace(s=[1]) %}{% for i in range(150) %}{% set ns.s = [ns.s, ns.s] %}"
      "{% endfor %}{{ ns.s|tojson }}",
      "{% set ns = namespace(s=[1], t=[1]) %}{% for i in range(150) %}"
      "{% set ns.s = [ns.s, ns.s] %}{% set ns.t = [ns.t, ns.t] %}{% endfor %}{{ ns.s == ns.t }}",
      "{% set ns = namespace(s=(1,)) %}{% for i in range(150) %}{% set ns.s = (ns.s, ns.s) %}"
      "{% endfor %}{{ {ns.s: 1} }}",
      "{% set ns = namespace(s=0) %}{% for i in range(100000) %}{% set ns.s = [ns.s] %}"
      "{% endfor %}",
      "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}",
      "{{ 'x'.ljust(1000000000000) }}",
      "{{ 'x'.center(99999999999999999999) }}",
      "{{ 'x'|center(1000000000000) }}",
      "{{ 'x\\ny'|indent(1000000000000) }}",
      "{{ '%1000000000000d' % 1 }}",
      "{{ '%.1000000000f' % 1.5 }}",
      "{{ '%*d' % (1000000000000, 1) }}",
      "{{ '{:>1000000000000}'.format(1) }}",
      "{{ '{:.1000000000f}'.format(1.5) }}",
      "{{ [1]|batch(1000000000000, 0)|list }}",
      "{{ [1]|slice(1000000000000)|list }}",
      "{{ 10 ** 1000 }}",
      "{{ 170141183460469231731687303715884105727 }}",
      "{{ 1000000000000000000000 * 1000000000000000000000 }}",
      "{{ ('a' * 1000000).replace('', 'b' * 1000000) }}",
      "{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}",
      "{{ ('a' * 1000000).join(range(1000)|map('string')) }}",
      "{% set s = 'a' * 30000000 %}{% for i in range(100000) %}{% if 'b' in s %}{% endif %}"
      "{% endfor %}",
      "{% set s = 'a' * 30000000 %}{% for i in range(100000) %}{{ s == s + '' }}{% endfor %}",
      "{% set s = 'a' * 60000000 %}{{ s.rfind('b' + 'a' * 30000000) }}",
      "{% set s = 'a' * 10000000 %}{{ s.strip('b' * 10000000 + 'a') }}",
      "{{ 'x'.expandtabs(1000000000000) ~ ('\\t' * 10000000).expandtabs(100000000) }}",
      "{{ strftime_now('%c' * 100000) }}",
      "{% macro f() %}{{ f() ~ f() }}{% endmacro %}{{ f() }}",
  };
  for (const char* source : kSources) {
    INFO(source);
    const auto start = std::chrono::steady_clock::now();
    CHECK(has_position(limited_error(source)));
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    // Seconds under a sanitizer on a busy machine; without limits these take hours.
    CHECK(taken.count() < 30);
  }
  CHECK(has_position(render_error(std::string(5'000'000, 'x'))));
}

TEST_CASE("Jinja frees values that contain themselves") {
  // Told by the leak check of a sanitizer build.
  CHECK(render("{% set ns = namespace() %}{% set ns.me = ns %}{% set ns.all = [ns, {'k': ns}] %}"
               "{% for x in [ns] %}{% set ns.loop = loop %}{{ loop.changed(loop) }}{% endfor %}"
               "{{ ns.loop.changed(ns.loop) }}") == "TrueTrue");
  CHECK(render("{% set ns = namespace() %}{% macro m() %}x{% endmacro %}{% set ns.m = m %}"
               "{{ ns.m() }}") == "x");
  CHECK(render("{% set ns = namespace(c=0) %}{% set ns.c = cycler(1, ns) %}{{ ns.c.next() }}") ==
        "1");
}

TEST_CASE("Jinja refuses a macro after the end of its block") {
  CHECK(has_position(render_error(
      "{% set ns = namespace() %}{% for i in [1] %}{% macro m() %}{{ i }}{% endmacro %}"
      "{% set ns.m = m %}{% endfor %}{{ ns.m() }}")));
  CHECK(
      has_position(render_error("{% set ns = namespace() %}{% for i in [1] recursive %}"
                                "{% set ns.l = loop %}{% endfor %}{% with %}{{ ns.l }}"
                                "{{ ns.l([2], 3) }}{% endwith %}")));
}

TEST_CASE("Jinja's sandbox keeps values unchanged and inside out of sight") {
  const Json list = {{"l", {1, 2}}, {"d", {{"a", 1}}}};
  CHECK(has_position(render_error("{{ l.append(3) }}", list)));
  CHECK(has_position(render_error("{{ d.update({'a': 2}) }}", list)));
  CHECK(has_position(render_error("{{ d.pop('a') }}", list)));
  CHECK(render("{{ l.__class__ }}{{ ''.__class__ }}{{ d['__init__'] }}", list).empty());
  CHECK(has_position(render_error("{% set ns = namespace() %}{% set ns.__class__ = 1 %}")));
  CHECK(has_position(render_error("{{ namespace(_x=1) }}")));
  for (const char* tag : {"{% include 'x' %}", "{% import 'x' as y %}", "{% from 'x' import y %}",
                          "{% extends 'x' %}", "{% block x %}{% endblock %}"}) {
    CHECK(has_position(render_error(tag)));
  }
}

TEST_CASE("Jinja renders keep nothing from one to the next") {
  const Template parsed(
      "{% set ns = namespace(c=0) %}{% for x in l %}{% set ns.c = ns.c + x %}"
      "{% endfor %}{{ ns.c }}");
  for (int i = 0; i < 3; ++i) {
    CHECK(parsed.render({{"l", {i, 1}}}) == std::to_string(i + 1));
  }
}

}  // namespace dsctl::templates::jinja
