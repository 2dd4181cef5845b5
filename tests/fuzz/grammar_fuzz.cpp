// Grammars, JSON schemas, regular expressions and choices from a client, and texts against them.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "engine/error.h"
#include "engine/grammar/automaton.h"
#include "engine/grammar/gbnf.h"
#include "engine/grammar/json_schema.h"
#include "engine/grammar/program.h"
#include "engine/grammar/regex_syntax.h"

namespace grammar = dsctl::engine::grammar;

namespace {

grammar::Syntax read(uint8_t kind, std::string_view source) {
  switch (kind % 3) {
    case 0:
      return grammar::parse_gbnf(source);
    case 1:
      return grammar::parse_json_schema(source);
    default: {
      grammar::Syntax syntax;
      syntax.rules.push_back(
          {.name = "root", .body = grammar::parse_regex(source, grammar::chars, kind >= 128)});
      return syntax;
    }
  }
}

}  // namespace

// A byte for the kind, the source, a zero byte, a text.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t end = rest.find('\0');
  const std::string_view source = rest.substr(0, end);
  const std::string_view text = end == std::string_view::npos ? "" : rest.substr(end + 1);
  try {
    const grammar::Program program = grammar::Program::compile(read(data[0], source));
    grammar::Automaton automaton(program);
    grammar::State state = automaton.start();
    for (const char byte : text.substr(0, 256)) {
      state = automaton.next(automaton.equivalent(state, 16), static_cast<uint8_t>(byte));
      if (state == grammar::kDead) break;
    }
  } catch (const dsctl::engine::Error&) {
  }
  return 0;
}
