#include "engine/grammar/json_schema.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "engine/error.h"
#include "engine/grammar/json_rules.h"
#include "engine/grammar/number_range.h"
#include "engine/grammar/regex_syntax.h"

namespace dsctl::engine::grammar {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxBytes = 1 << 20;
constexpr int kMaxDepth = 96;
constexpr int64_t kMaxRepetitions = 100'000;

// Say nothing about which texts a schema allows. (uniqueItems does, but no grammar can count on it;
// like llama.cpp's converter this one lets it pass.)
const std::set<std::string, std::less<>> kAnnotations{"title",
                                                      "description",
                                                      "default",
                                                      "examples",
                                                      "example",
                                                      "$schema",
                                                      "$id",
                                                      "id",
                                                      "$comment",
                                                      "$defs",
                                                      "definitions",
                                                      "deprecated",
                                                      "readOnly",
                                                      "writeOnly",
                                                      "contentEncoding",
                                                      "contentMediaType",
                                                      "discriminator",
                                                      "$anchor",
                                                      "uniqueItems"};

// A string of some format as a regular expression.
const std::map<std::string, const char*, std::less<>> kFormats{
    {"date", R"(^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$)"},
    {"time",
     R"(^([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{3})?(Z|[+\-]([01][0-9]|2[0-3]):[0-5][0-9])$)"},
    {"date-time",
     R"(^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{3})?(Z|[+\-]([01][0-9]|2[0-3]):[0-5][0-9])$)"},
    {"duration",
     R"(^P([0-9]{1,4}Y)?([0-9]{1,4}M)?([0-9]{1,4}W)?([0-9]{1,4}D)?(T([0-9]{1,4}H)?([0-9]{1,4}M)?([0-9]{1,4}(\.[0-9]{1,9})?S)?)?$)"},
    {"email",
     R"(^[A-Za-z0-9._%+\-]{1,64}@[A-Za-z0-9]([A-Za-z0-9\-]{0,62})(\.[A-Za-z0-9]([A-Za-z0-9\-]{0,62})){1,8}$)"},
    {"hostname", R"(^[A-Za-z0-9]([A-Za-z0-9\-]{0,62})(\.[A-Za-z0-9]([A-Za-z0-9\-]{0,62})){0,8}$)"},
    {"ipv4",
     R"(^((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])$)"},
    {"ipv6", R"(^([0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}$)"},
    {"uri", R"(^[A-Za-z][A-Za-z0-9+.\-]{1,20}:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]{1,2000}$)"},
    {"uuid", R"(^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$)"},
};

class SchemaReader : JsonRules {
 public:
  explicit SchemaReader(const Json& root) : root_(root) {}

  Syntax read() {
    syntax_.root_idx = add_rule("root");
    set_rule(syntax_.root_idx, is_empty_object(root_) ? rule(object()) : visit(root_, "#", 0));
    return std::move(syntax_);
  }

  Syntax read_any_object() {
    syntax_.root_idx = add_rule("root");
    set_rule(syntax_.root_idx, rule(object()));
    return std::move(syntax_);
  }

 private:
  [[noreturn]] static void fail(const std::string& where, const std::string& what) {
    throw Error("JSON schema: " + where + ": " + what);
  }

  static bool is_empty_object(const Json& schema) {
    return schema.is_object() &&
           std::all_of(schema.items().begin(), schema.items().end(),
                       [](const auto& item) { return kAnnotations.contains(item.key()); });
  }

  /// Every keyword must be one that is followed here.
  static void allow_only(const Json& schema, const std::string& where,
                         std::initializer_list<std::string_view> keywords) {
    for (const auto& item : schema.items()) {
      if (kAnnotations.contains(item.key())) continue;
      if (std::find(keywords.begin(), keywords.end(), item.key()) == keywords.end()) {
        fail(where, "the keyword \"" + item.key() + "\" is not supported here");
      }
    }
  }

  Expr visit(const Json& schema, const std::string& where, int depth) {
    if (depth > kMaxDepth) fail(where, "nested too deeply");
    if (schema.is_boolean() && schema.get<bool>()) return rule(value());
    if (!schema.is_object())
      fail(where, "found " + shown(schema) + ", expected a schema (an object)");
    if (is_empty_object(schema)) return rule(value());
    if (schema.contains("$ref")) {
      allow_only(schema, where, {"$ref"});
      return rule(reference(schema["$ref"], where, depth));
    }
    for (const char* keyword : {"oneOf", "anyOf"}) {
      if (schema.contains(keyword)) return visit_any_of(schema, keyword, where, depth);
    }
    if (schema.contains("type") && schema["type"].is_array()) {
      return visit_types(schema, where, depth);
    }
    if (schema.contains("const")) {
      allow_only(schema, where, {"const", "type"});
      return token(literal(schema["const"].dump()));
    }
    if (schema.contains("enum")) return visit_enum(schema, where);
    if (schema.contains("allOf")) return visit_all_of(schema, where, depth);
    return visit_type(schema, type_of(schema, where), where, depth);
  }

  /// The schema's type, said or implied by its keywords.
  static std::string type_of(const Json& schema, const std::string& where) {
    if (schema.contains("type")) {
      const Json& type = schema["type"];
      if (!type.is_string()) fail(where, "\"type\" is " + shown(type) + ", expected a string");
      return type.get<std::string>();
    }
    const auto has = [&](std::initializer_list<const char*> keywords) {
      return std::any_of(keywords.begin(), keywords.end(),
                         [&](const char* keyword) { return schema.contains(keyword); });
    };
    if (has({"properties", "additionalProperties", "required"})) return "object";
    if (has({"items", "prefixItems", "minItems", "maxItems"})) return "array";
    if (has({"pattern", "format", "minLength", "maxLength"})) return "string";
    if (has({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})) return "number";
    for (const auto& item : schema.items()) {
      if (!kAnnotations.contains(item.key())) {
        fail(where, "the keyword \"" + item.key() + "\" is not supported");
      }
    }
    fail(where, "the schema has no type");
  }

  Expr visit_type(const Json& schema, const std::string& type, const std::string& where,
                  int depth) {
    if (type == "object") return visit_object(schema, where, depth);
    if (type == "array") return visit_array(schema, where, depth);
    if (type == "string") return visit_string(schema, where);
    if (type == "integer" || type == "number")
      return visit_number(schema, type == "integer", where);
    if (type == "boolean" || type == "null") {
      allow_only(schema, where, {"type"});
      return rule(type == "null" ? null() : boolean());
    }
    fail(where, "unknown type \"" + type + "\"");
  }

  Expr visit_types(const Json& schema, const std::string& where, int depth) {
    std::vector<Expr> ways;
    for (const Json& type : schema["type"]) {
      if (!type.is_string()) fail(where, "\"type\" has " + shown(type) + ", expected strings");
      Json one = schema;
      one["type"] = type;
      if (one.contains("enum") || one.contains("const")) {
        // A list of values says more than their types.
        one.erase("type");
        return visit(one, where, depth);
      }
      const auto name = type.get<std::string>();
      drop_foreign_keywords(one, name);
      ways.push_back(visit(one, where, depth + 1));
    }
    if (ways.empty()) fail(where, "\"type\" is an empty list");
    return choice(std::move(ways));
  }

  /// A keyword of another type says nothing about this one.
  static void drop_foreign_keywords(Json& schema, const std::string& type) {
    static const std::map<std::string, std::vector<std::string>, std::less<>> kKeywords{
        {"object", {"properties", "required", "additionalProperties"}},
        {"array", {"items", "prefixItems", "minItems", "maxItems"}},
        {"string", {"pattern", "format", "minLength", "maxLength"}},
        {"number", {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}}};
    const std::string own = type == "integer" ? "number" : type;
    for (const auto& [owner, keywords] : kKeywords) {
      if (owner == own) continue;
      for (const std::string& keyword : keywords)
        schema.erase(keyword);
    }
  }

  Expr visit_any_of(const Json& schema, const char* keyword, const std::string& where, int depth) {
    allow_only(schema, where, {keyword, "type"});
    const Json& list = schema[keyword];
    if (!list.is_array() || list.empty()) {
      fail(where,
           "\"" + std::string(keyword) + "\" is " + shown(list) + ", expected a list of schemas");
    }
    std::vector<Expr> ways;
    for (size_t i = 0; i < list.size(); ++i) {
      ways.push_back(visit(list[i], where + "/" + keyword + "/" + std::to_string(i), depth + 1));
    }
    return choice(std::move(ways));
  }

  Expr visit_enum(const Json& schema, const std::string& where) {
    allow_only(schema, where, {"enum", "type"});
    const Json& values = schema["enum"];
    if (!values.is_array() || values.empty()) {
      fail(where, "\"enum\" is " + shown(values) + ", expected a list of values");
    }
    std::vector<Expr> ways;
    for (const Json& value : values)
      ways.push_back(literal(value.dump()));
    return token(choice(std::move(ways)));
  }

  /// The rule of what a local reference ("#/$defs/name") points to.
  int reference(const Json& ref, const std::string& where, int depth) {
    if (!ref.is_string()) fail(where, "\"$ref\" is " + shown(ref) + ", expected a string");
    const auto text = ref.get<std::string>();
    const auto known = references_.find(text);
    if (known != references_.end()) return known->second;
    const Json& target = resolve(text, where);
    const int idx = add_rule("ref " + text);
    references_.emplace(text, idx);
    set_rule(idx, visit(target, text, depth + 1));
    return idx;
  }

  const Json& resolve(const std::string& ref, const std::string& where) const {
    if (ref.empty() || ref.front() != '#') {
      fail(where,
           "\"$ref\" points outside the schema: \"" + ref + "\"; only \"#/...\" is followed");
    }
    const Json* target = &root_;
    for (size_t begin = 1; begin < ref.size();) {
      if (ref[begin] != '/') fail(where, "\"$ref\" is \"" + ref + "\", expected \"#/...\"");
      const size_t end = std::min(ref.find('/', begin + 1), ref.size());
      const std::string key = unescape_pointer(ref.substr(begin + 1, end - begin - 1));
      begin = end;
      if (target->is_object() && target->contains(key)) {
        target = &(*target)[key];
        continue;
      }
      const bool is_index = !key.empty() && key.size() < 7 &&
                            key.find_first_not_of("0123456789") == std::string::npos;
      if (target->is_array() && is_index && std::stoul(key) < target->size()) {
        target = &(*target)[std::stoul(key)];
        continue;
      }
      fail(where, "\"$ref\" points to nothing: \"" + ref + "\" (no \"" + key + "\")");
    }
    return *target;
  }

  static std::string unescape_pointer(const std::string& text) {
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
      const bool escaped = text[i] == '~' && i + 1 < text.size();
      if (escaped && (text[i + 1] == '0' || text[i + 1] == '1')) {
        out += text[++i] == '0' ? '~' : '/';
      } else {
        out += text[i];
      }
    }
    return out;
  }

  // Objects.

  struct Property {
    std::string name;
    const Json* schema = nullptr;
    std::string where;
    bool required = false;
  };

  void add_properties(const Json& schema, const std::string& where, bool may_require,
                      std::vector<Property>& out) {
    const Json none = Json::array();
    std::set<std::string> required;
    if (schema.contains("required")) {
      const Json& names = schema["required"];
      if (!names.is_array())
        fail(where, "\"required\" is " + shown(names) + ", expected a list of names");
      for (const Json& name : names) {
        if (!name.is_string()) fail(where, "\"required\" has " + shown(name) + ", expected names");
        required.insert(name.get<std::string>());
      }
    }
    if (schema.contains("properties")) {
      const Json& properties = schema["properties"];
      if (!properties.is_object()) {
        fail(where, "\"properties\" is " + shown(properties) + ", expected an object");
      }
      for (const auto& item : properties.items()) {
        const bool is_required = may_require && required.erase(item.key()) > 0;
        const bool known = std::any_of(out.begin(), out.end(), [&](const Property& property) {
          return property.name == item.key();
        });
        if (known) fail(where, "the property \"" + item.key() + "\" is declared twice");
        out.push_back({.name = item.key(),
                       .schema = &item.value(),
                       .where = where + "/properties/" + item.key(),
                       .required = is_required});
      }
    }
    if (may_require && !required.empty()) {
      fail(where, "\"required\" names \"" + *required.begin() + "\", which is no property");
    }
  }

  Expr visit_object(const Json& schema, const std::string& where, int depth) {
    allow_only(schema, where, {"type", "properties", "required", "additionalProperties"});
    std::vector<Property> properties;
    add_properties(schema, where, true, properties);
    // Without any word on properties every object will do.
    const bool says_nothing = properties.empty() && !schema.contains("additionalProperties");
    if (says_nothing && !schema.contains("properties")) return rule(object());
    return object_of(properties, schema, where, depth);
  }

  Expr object_of(const std::vector<Property>& properties, const Json& schema,
                 const std::string& where, int depth) {
    std::vector<Expr> required;
    std::vector<int> optionals;  // rules of name and value
    for (const Property& property : properties) {
      Expr pair = sequence({token(literal(Json(property.name).dump())), token(literal(":")),
                            visit(*property.schema, property.where, depth + 1)});
      if (property.required) {
        required.push_back(std::move(pair));
      } else {
        optionals.push_back(add_rule(property.where));
        set_rule(optionals.back(), std::move(pair));
      }
    }
    std::optional<int> additional;
    if (schema.contains("additionalProperties")) {
      const Json& others = schema["additionalProperties"];
      if (!others.is_boolean() || others.get<bool>()) {
        additional = add_rule(where + "/additionalProperties");
        Expr value = visit(others, where + "/additionalProperties", depth + 1);
        set_rule(*additional,
                 sequence({other_name(properties), token(literal(":")), std::move(value)}));
      }
    }
    std::vector<Expr> parts{token(literal("{"))};
    for (size_t i = 0; i < required.size(); ++i) {
      if (i > 0) parts.push_back(token(literal(",")));
      parts.push_back(std::move(required[i]));
    }
    if (!optionals.empty() || additional) {
      Expr some = optional_pairs(optionals, additional);
      if (!required.empty()) some = sequence({token(literal(",")), std::move(some)});
      parts.push_back(optional(std::move(some)));
    }
    parts.push_back(token(literal("}")));
    return sequence(std::move(parts));
  }

  /// At least one of the optional pairs, in order, then any number of additional ones.
  Expr optional_pairs(const std::vector<int>& optionals, const std::optional<int>& additional) {
    // rests[i]: what may come after pair i.
    std::vector<int> rests(optionals.size());
    for (size_t i = optionals.size(); i-- > 0;) {
      rests[i] = add_rule("rest");
      if (i + 1 < optionals.size()) {
        set_rule(rests[i],
                 sequence({optional(sequence({token(literal(",")), rule(optionals[i + 1])})),
                           rule(rests[i + 1])}));
      } else if (additional) {
        set_rule(rests[i], repeat(sequence({token(literal(",")), rule(*additional)}), 0));
      } else {
        set_rule(rests[i], sequence({}));
      }
    }
    std::vector<Expr> ways;
    for (size_t i = 0; i < optionals.size(); ++i)
      ways.push_back(sequence({rule(optionals[i]), rule(rests[i])}));
    if (additional) ways.push_back(separated(rule(*additional), 1, Expr::kUnbounded));
    return choice(std::move(ways));
  }

  /// A string that is none of the declared names.
  Expr other_name(const std::vector<Property>& properties) {
    if (properties.empty()) return rule(string());
    std::vector<std::u32string> names;
    for (const Property& property : properties) {
      const std::string text = Json(property.name).dump();
      names.push_back(decode_utf8(std::string_view(text).substr(1, text.size() - 2)));
    }
    std::sort(names.begin(), names.end());
    return quoted(none_of(names, 0));
  }

  /// What may follow a common beginning of `depth` characters of `names` (sorted) so that the whole
  /// is none of them.
  Expr none_of(const std::vector<std::u32string>& names, size_t depth) {
    std::vector<Expr> ways;
    CharSet taken;
    bool ends_here = false;
    for (size_t i = 0; i < names.size();) {
      if (names[i].size() == depth) {
        ends_here = true;
        ++i;
        continue;
      }
      const char32_t c = names[i][depth];
      std::vector<std::u32string> below;
      for (; i < names.size() && names[i][depth] == c; ++i)
        below.push_back(names[i]);
      taken.push_back({c, c});
      ways.push_back(sequence({chars({{c, c}}), none_of(below, depth + 1)}));
    }
    const CharSet plain =
        intersection(complement(normalized({{0, 0x1F}, {0x7F, 0x7F}, {'"', '"'}, {'\\', '\\'}})),
                     complement(normalized(taken)));
    const bool escape_taken = !intersection(normalized(taken), {{'\\', '\\'}}).empty();
    std::vector<Expr> others{chars(plain)};
    if (!escape_taken) others.push_back(escape());
    ways.push_back(sequence({choice(std::move(others)), repeat(rule(string_char()), 0)}));
    if (!ends_here) ways.push_back(sequence({}));
    return choice(std::move(ways));
  }

  Expr visit_all_of(const Json& schema, const std::string& where, int depth) {
    allow_only(schema, where, {"allOf", "type", "properties", "required", "additionalProperties"});
    std::vector<Property> properties;
    add_properties(schema, where, true, properties);
    const Json& list = schema["allOf"];
    if (!list.is_array() || list.empty()) {
      fail(where, "\"allOf\" is " + shown(list) + ", expected a list of schemas");
    }
    if (list.size() == 1 && properties.empty())
      return visit(list[0], where + "/allOf/0", depth + 1);
    for (size_t i = 0; i < list.size(); ++i)
      add_part(list[i], where + "/allOf/" + std::to_string(i), true, depth, properties);
    return object_of(properties, schema, where, depth);
  }

  /// The properties of one part of an allOf: each is required, those of an anyOf inside are not.
  void add_part(const Json& part, const std::string& where, bool required, int depth,
                std::vector<Property>& out) {
    if (depth > kMaxDepth) fail(where, "nested too deeply");
    if (!part.is_object()) fail(where, "found " + shown(part) + ", expected a schema (an object)");
    if (part.contains("$ref")) {
      allow_only(part, where, {"$ref"});
      if (!part["$ref"].is_string()) fail(where, "\"$ref\" is not a string");
      const auto ref = part["$ref"].get<std::string>();
      return add_part(resolve(ref, where), ref, required, depth + 1, out);
    }
    if (part.contains("anyOf")) {
      allow_only(part, where, {"anyOf"});
      for (size_t i = 0; i < part["anyOf"].size(); ++i) {
        add_part(part["anyOf"][i], where + "/anyOf/" + std::to_string(i), false, depth + 1, out);
      }
      return;
    }
    allow_only(part, where, {"type", "properties", "required"});
    const size_t first = out.size();
    add_properties(part, where, part.contains("required"), out);
    for (size_t i = first; i < out.size(); ++i)
      out[i].required = required && (out[i].required || !part.contains("required"));
  }

  // Arrays, strings, numbers.

  static int count_of(const Json& schema, const char* keyword, int fallback,
                      const std::string& where) {
    if (!schema.contains(keyword)) return fallback;
    const Json& value = schema[keyword];
    const bool is_count = value.is_number_integer() && value.get<double>() >= 0;
    if (!is_count)
      fail(where, "\"" + std::string(keyword) + "\" is " + shown(value) + ", expected a count");
    if (value.get<double>() > static_cast<double>(kMaxRepetitions)) {
      fail(where, "\"" + std::string(keyword) + "\" is " + shown(value) + ", at most " +
                      std::to_string(kMaxRepetitions) + " is supported");
    }
    return value.get<int>();
  }

  Expr visit_array(const Json& schema, const std::string& where, int depth) {
    allow_only(schema, where, {"type", "items", "prefixItems", "minItems", "maxItems"});
    const char* keyword = schema.contains("items") ? "items" : "prefixItems";
    const bool has_prefix = schema.contains("prefixItems") && schema["prefixItems"].is_array();
    if (has_prefix) keyword = "prefixItems";
    if (schema.contains(keyword) && schema[keyword].is_array()) {
      return visit_tuple(schema, keyword, where, depth);
    }
    const int min = count_of(schema, "minItems", 0, where);
    const int max = count_of(schema, "maxItems", Expr::kUnbounded, where);
    if (max != Expr::kUnbounded && max < min) fail(where, "\"maxItems\" is under \"minItems\"");
    if (!schema.contains(keyword)) return list_of(rule(value()), min, max);
    const int item = add_rule(where + "/" + keyword);
    set_rule(item, visit(schema[keyword], where + "/" + keyword, depth + 1));
    return list_of(rule(item), min, max);
  }

  Expr visit_tuple(const Json& schema, const char* keyword, const std::string& where, int depth) {
    const Json& items = schema[keyword];
    for (const char* count : {"minItems", "maxItems"}) {
      if (schema.contains(count) && schema[count] != items.size()) {
        fail(where,
             "\"" + std::string(count) + "\" differs from the number of \"" + keyword + "\"");
      }
    }
    if (std::string_view(keyword) == "prefixItems" && schema.contains("items") &&
        schema["items"] != false) {
      fail(where, "\"items\" beside \"prefixItems\" is not supported unless it is false");
    }
    std::vector<Expr> parts{token(literal("["))};
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) parts.push_back(token(literal(",")));
      parts.push_back(visit(items[i], where + "/" + keyword + "/" + std::to_string(i), depth + 1));
    }
    parts.push_back(token(literal("]")));
    return sequence(std::move(parts));
  }

  Expr visit_string(const Json& schema, const std::string& where) {
    allow_only(schema, where, {"type", "pattern", "format", "minLength", "maxLength"});
    const bool has_length = schema.contains("minLength") || schema.contains("maxLength");
    const bool has_pattern = schema.contains("pattern");
    const bool has_format = schema.contains("format");
    if (static_cast<int>(has_length) + static_cast<int>(has_pattern) +
            static_cast<int>(has_format) >
        1) {
      fail(where, "only one of \"pattern\", \"format\" and a length can be followed at a time");
    }
    if (has_pattern) {
      if (!schema["pattern"].is_string()) fail(where, "\"pattern\" is not a string");
      return pattern_string(schema["pattern"].get<std::string>(), where + "/pattern");
    }
    if (has_format) {
      const auto name = schema["format"].is_string() ? schema["format"].get<std::string>() : "";
      const bool is_uuid =
          name.size() == 5 && name.starts_with("uuid") && name[4] >= '1' && name[4] <= '5';
      const auto format = kFormats.find(is_uuid ? "uuid" : name);
      if (format == kFormats.end()) {
        fail(where, "the keyword \"format\" with " + shown(schema["format"]) + " is not supported");
      }
      return pattern_string(format->second, where + "/format");
    }
    if (!has_length) return rule(string());
    const int min = count_of(schema, "minLength", 0, where);
    const int max = count_of(schema, "maxLength", Expr::kUnbounded, where);
    if (max != Expr::kUnbounded && max < min) fail(where, "\"maxLength\" is under \"minLength\"");
    return quoted(repeat(rule(string_char()), min, max));
  }

  Expr pattern_string(const std::string& pattern, const std::string& where) {
    try {
      return quoted(parse_regex(pattern, json_char, /*is_search=*/true));
    } catch (const Error& error) {
      fail(where, error.what());
    }
  }

  Expr visit_number(const Json& schema, bool is_integer, const std::string& where) {
    allow_only(schema, where,
               {"type", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"});
    if (schema.contains("format")) {
      // OpenAPI's names of machine types; the range of the narrower ones is not enforced there.
      const std::string format =
          schema["format"].is_string() ? schema["format"].get<std::string>() : "";
      if (format != "int32" && format != "int64" && format != "float" && format != "double") {
        fail(where, "the keyword \"format\" with " + shown(schema["format"]) + " is not supported");
      }
    }
    std::optional<DecimalBound> min = bound_of(schema, "minimum", false, where);
    std::optional<DecimalBound> max = bound_of(schema, "maximum", false, where);
    const auto above = bound_of(schema, "exclusiveMinimum", true, where);
    const auto below = bound_of(schema, "exclusiveMaximum", true, where);
    if ((min && above) || (max && below)) {
      fail(where, "a bound is given both with and without \"exclusive\"");
    }
    if (above) min = above;
    if (below) max = below;
    if (!min && !max) return rule(is_integer ? integer() : number());
    try {
      return token(is_integer ? integer_range(min, max) : number_range(min, max));
    } catch (const Error& error) {
      fail(where, error.what());
    }
  }

  static std::optional<DecimalBound> bound_of(const Json& schema, const char* keyword,
                                              bool exclusive, const std::string& where) {
    if (!schema.contains(keyword)) return std::nullopt;
    const Json& value = schema[keyword];
    if (!value.is_number()) {
      fail(where, "\"" + std::string(keyword) + "\" is " + shown(value) + ", expected a number");
    }
    auto bound = DecimalBound::parse(value.dump(), exclusive);
    if (!bound) fail(where, "\"" + std::string(keyword) + "\" is too large or too small");
    return bound;
  }

  static std::string shown(const Json& value) {
    std::string text = value.dump(-1, ' ', true);
    if (text.size() > 60) text = text.substr(0, 57) + "...";
    return text;
  }

  const Json& root_;
  std::map<std::string, int> references_;
};

}  // namespace

Syntax parse_json_schema(std::string_view schema) {
  if (schema.size() > kMaxBytes) {
    throw Error("JSON schema: " + std::to_string(schema.size()) + " bytes, at most " +
                std::to_string(kMaxBytes) + " are allowed");
  }
  Json root;
  try {
    root = Json::parse(schema, [](int depth, Json::parse_event_t, Json&) {
      if (depth > 2 * kMaxDepth) throw Error("JSON schema: nested too deeply");
      return true;
    });
  } catch (const Json::exception& error) {
    throw Error("JSON schema: no JSON: " + std::string(error.what()));
  }
  try {
    return SchemaReader(root).read();
  } catch (const Json::exception& error) {
    throw Error("JSON schema: " + std::string(error.what()));
  }
}

Syntax json_object_syntax() {
  const Json none;
  return SchemaReader(none).read_any_object();
}

}  // namespace dsctl::engine::grammar
