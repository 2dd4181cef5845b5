#include "commands/structured_output.h"

#include <fstream>
#include <iterator>

#include "commands/error.h"

namespace dsctl::commands {
namespace {

constexpr size_t kMaxSchemaBytes = 1 << 20;

engine::GrammarSpec schema_spec(std::string schema) {
  engine::GrammarSpec spec;
  spec.kind = engine::GrammarSpec::Kind::kJsonSchema;
  spec.source = std::move(schema);
  return spec;
}

}  // namespace

engine::GrammarSpec parse_format(std::string_view text) {
  if (text == "json") {
    engine::GrammarSpec spec;
    spec.kind = engine::GrammarSpec::Kind::kJsonObject;
    return spec;
  }
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first != std::string_view::npos && text[first] == '{') return schema_spec(std::string(text));
  std::ifstream in{std::string(text), std::ios::binary};
  if (!in) {
    throw Error("format \"" + std::string(text) +
                "\": expected \"json\", a JSON schema, or a file with one");
  }
  std::string schema(kMaxSchemaBytes + 1, '\0');
  in.read(schema.data(), static_cast<std::streamsize>(schema.size()));
  schema.resize(static_cast<size_t>(in.gcount()));
  if (schema.size() > kMaxSchemaBytes) {
    throw Error("format \"" + std::string(text) + "\": the file has more than " +
                std::to_string(kMaxSchemaBytes) + " bytes");
  }
  return schema_spec(std::move(schema));
}

std::optional<engine::GrammarSpec> grammar_for_engine(
    const std::optional<engine::GrammarSpec>& grammar,
    const std::optional<ThinkingFormat>& thinking) {
  if (!grammar || !thinking) return grammar;
  engine::GrammarSpec spec = *grammar;
  spec.start_after = thinking->close_tag;
  spec.control_tokens.push_back(thinking->open_tag);
  spec.control_tokens.push_back(thinking->close_tag);
  if (!thinking->starts_inside) spec.may_begin_with = thinking->open_tag;
  return spec;
}

}  // namespace dsctl::commands
