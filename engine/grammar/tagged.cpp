#include "engine/grammar/tagged.h"

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "engine/error.h"
#include "engine/grammar/json_schema.h"

namespace dsctl::engine::grammar {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxBytes = 1 << 20;
constexpr size_t kMaxItems = 1024;

std::string text_of(const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end()) return "";
  if (!found->is_string()) throw Error("tagged grammar: \"" + std::string(key) + "\" is no text");
  return found->get<std::string>();
}

void shift_rules(Expr& expr, int offset) {
  if (expr.kind == Expr::Kind::kRule) expr.rule_idx += offset;
  for (Expr& part : expr.parts)
    shift_rules(part, offset);
}

/// Adds the rules of `other`; returns where its root is now.
int append(Syntax& syntax, Syntax other) {
  const int offset = static_cast<int>(syntax.rules.size());
  for (Syntax::Rule& rule : other.rules) {
    shift_rules(rule.body, offset);
    syntax.rules.push_back(std::move(rule));
  }
  return other.root_idx + offset;
}

Expr text(const std::string& value) {
  return literal(std::string_view(value));
}

Expr read_item(Syntax& syntax, const Json& item) {
  if (!item.is_object() || !item.contains("schema")) {
    throw Error("tagged grammar: expected items with a schema");
  }
  const std::string begin = text_of(item, "begin");
  int root = 0;
  try {
    root = append(syntax, parse_json_schema(item["schema"].dump()));
  } catch (const Error& error) {
    throw Error("after \"" + begin + "\": " + error.what());
  }
  return sequence({text(begin), rule(root), text(text_of(item, "end"))});
}

}  // namespace

Syntax parse_tagged(std::string_view source) {
  if (source.size() > kMaxBytes) {
    throw Error("tagged grammar: " + std::to_string(source.size()) + " bytes, at most " +
                std::to_string(kMaxBytes) + " are allowed");
  }
  const Json json = Json::parse(source, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) throw Error("tagged grammar: expected a JSON object");
  const auto items = json.find("items");
  if (items == json.end() || !items->is_array() || items->empty() || items->size() > kMaxItems) {
    throw Error("tagged grammar: expected 1 to " + std::to_string(kMaxItems) + " items");
  }
  const auto max_items = json.find("max_items");
  if (max_items == json.end() || !max_items->is_number_integer() || max_items->get<int64_t>() < 1 ||
      max_items->get<int64_t>() > static_cast<int64_t>(kMaxItems)) {
    throw Error("tagged grammar: \"max_items\" must be from 1 to " + std::to_string(kMaxItems));
  }
  Syntax syntax;
  std::vector<Expr> ways;
  for (const Json& item : *items)
    ways.push_back(read_item(syntax, item));
  syntax.rules.push_back({.name = "item", .body = choice(std::move(ways))});
  const Expr item = rule(static_cast<int>(syntax.rules.size()) - 1);
  const Expr more = sequence({text(text_of(json, "separator")), item});
  syntax.rules.push_back({.name = "root",
                          .body = sequence({text(text_of(json, "open")), item,
                                            repeat(more, 0, max_items->get<int>() - 1),
                                            text(text_of(json, "close"))})});
  syntax.root_idx = static_cast<int>(syntax.rules.size()) - 1;
  return syntax;
}

}  // namespace dsctl::engine::grammar
