#include "commands/serve/grammar_fields.h"

#include <string>
#include <utility>

namespace dsctl::commands::serve {
namespace {

using engine::GrammarSpec;
using Kind = GrammarSpec::Kind;

GrammarSpec spec_of(Kind kind, std::string source) {
  GrammarSpec spec;
  spec.kind = kind;
  spec.source = std::move(source);
  return spec;
}

// At most one grammar: the second one is an error that names both.
class Found {
 public:
  void set(std::string field, GrammarSpec spec) {
    if (spec_) {
      throw ApiError(400,
                     "fields \"" + field_ + "\" and \"" + field +
                         "\" both say what the answer must look like; give one of them",
                     field);
    }
    field_ = std::move(field);
    spec_ = std::move(spec);
  }
  std::optional<GrammarSpec> take() { return std::move(spec_); }

 private:
  std::string field_;
  std::optional<GrammarSpec> spec_;
};

// A schema: as an object, or as a text that has one.
GrammarSpec schema_spec(const Fields& fields, std::string_view name, const Json& schema) {
  if (schema.is_string()) return spec_of(Kind::kJsonSchema, schema.get<std::string>());
  if (!schema.is_object() && !schema.is_boolean()) fields.fail(name, "a JSON schema", schema);
  return spec_of(Kind::kJsonSchema, schema.dump());
}

// vLLM's four kinds; `prefix` is put before their names.
void parse_guided(const Fields& fields, const std::string& prefix, Found& found) {
  const auto name = [&](const char* kind) { return prefix + kind; };
  if (const Json* schema = fields.any(name("json"))) {
    found.set(fields.path_of(name("json")), schema_spec(fields, name("json"), *schema));
  }
  if (const auto regex = fields.text(name("regex"))) {
    found.set(fields.path_of(name("regex")), spec_of(Kind::kRegex, *regex));
  }
  if (const Json* choices = fields.array(name("choice"))) {
    found.set(fields.path_of(name("choice")), spec_of(Kind::kChoice, choices->dump()));
  }
  if (const auto grammar = fields.text(name("grammar"))) {
    found.set(fields.path_of(name("grammar")), spec_of(Kind::kGbnf, *grammar));
  }
}

void parse_response_format(const Fields& fields, Found& found) {
  const Json* value = fields.object("response_format");
  if (!value) return;
  const Fields format(*value, fields.path_of("response_format"));
  const std::string type = format.required_text("type");
  if (type == "text") return;
  if (type == "json_object") {
    // llama.cpp's servers take a schema here too.
    const Json* schema = format.object("schema");
    found.set("response_format",
              schema ? schema_spec(format, "schema", *schema) : spec_of(Kind::kJsonObject, ""));
    return;
  }
  if (type != "json_schema") {
    format.fail("type", "\"text\", \"json_object\" or \"json_schema\"", (*value)["type"]);
  }
  const Json* wrapped = format.object("json_schema");
  if (!wrapped) {
    throw ApiError(400, "field \"response_format.json_schema\" is missing",
                   "response_format.json_schema");
  }
  const Fields wrapper(*wrapped, "response_format.json_schema");
  const Json* schema = wrapper.any("schema");
  if (!schema) {
    throw ApiError(400, "field \"response_format.json_schema.schema\" is missing",
                   "response_format.json_schema.schema");
  }
  found.set("response_format", schema_spec(wrapper, "schema", *schema));
}

}  // namespace

std::optional<GrammarSpec> parse_format_field(const Fields& fields) {
  const Json* format = fields.any("format");
  if (!format) return std::nullopt;
  if (format->is_string()) {
    const auto text = format->get<std::string>();
    if (text.empty()) return std::nullopt;
    if (text == "json") return spec_of(Kind::kJsonObject, "");
  } else if (format->is_object()) {
    return spec_of(Kind::kJsonSchema, format->dump());
  }
  fields.fail("format", "\"json\" or a JSON schema", *format);
}

std::optional<GrammarSpec> parse_grammar_fields(const Fields& fields) {
  Found found;
  parse_response_format(fields, found);
  if (const Json* outputs = fields.object("structured_outputs")) {
    const Fields inner(*outputs, fields.path_of("structured_outputs"));
    inner.refuse({"structural_tag"});
    if (inner.flag("json_object").value_or(false)) {
      found.set("structured_outputs.json_object", spec_of(Kind::kJsonObject, ""));
    }
    parse_guided(inner, "", found);
  }
  parse_guided(fields, "guided_", found);
  if (const auto grammar = fields.text("grammar")) {
    if (!grammar->empty()) found.set("grammar", spec_of(Kind::kGbnf, *grammar));
  }
  if (const Json* schema = fields.any("json_schema")) {
    found.set("json_schema", schema_spec(fields, "json_schema", *schema));
  }
  return found.take();
}

}  // namespace dsctl::commands::serve
