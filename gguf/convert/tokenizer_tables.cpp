#include "gguf/convert/tokenizer_tables.h"

#include <algorithm>
#include <map>
#include <sstream>
#include <unordered_map>

#include "gguf/convert/json_file.h"
#include "gguf/convert/pre_tokenizer.h"
#include "gguf/error.h"
#include "gguf/printable.h"

namespace dsctl::gguf::convert {
namespace {

constexpr int64_t kMaxVocabSize = 4'000'000;

struct AddedToken {
  std::string text;
  bool is_special = false;
};
using AddedTokens = std::map<int64_t, AddedToken>;

int32_t as_type(TokenKind kind) {
  return static_cast<int32_t>(kind);
}

/// Tokens that checkpoints forgot to mark as special (of DeepSeek Coder, Gemma 2, Command R).
bool looks_special(std::string_view text) {
  for (const std::string_view name : {"<pad>", "<mask>", "<2mass>", "[@BOS@]"}) {
    if (text == name) return true;
  }
  constexpr std::string_view kOpen = "<\uff5c";
  constexpr std::string_view kClose = "\uff5c>";
  return (text.starts_with("<|") && text.ends_with("|>")) ||
         (text.starts_with(kOpen) && text.ends_with(kClose)) ||
         (text.starts_with("<unused") && text.ends_with(">"));
}

/// U+2581, which stands for a space in SentencePiece, as a space.
std::string with_spaces(std::string text) {
  constexpr std::string_view kMark = "\u2581";
  for (size_t at = text.find(kMark); at != std::string::npos; at = text.find(kMark, at))
    text.replace(at, kMark.size(), " ");
  return text;
}

int64_t checked_id(const Json& value, std::string_view what, std::string_view text) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() >= uint64_t{kMaxVocabSize}) {
    throw Error(std::string(what) + ": \"" + printable(text) +
                "\": " + printable(value.dump(), 40) + " is no token id");
  }
  return static_cast<int64_t>(value.get<uint64_t>());
}

/// added_tokens_decoder of tokenizer_config.json: {"128000": {"content": ..., "special": ...}}.
void add_from_config(const Json& tokenizer_config, AddedTokens& added, bool overwrite) {
  const Json* decoder = object_member(tokenizer_config, "added_tokens_decoder");
  if (!decoder) return;
  for (const auto& [key, value] : decoder->items()) {
    const auto text = string_member(value, "content");
    const bool is_number =
        !key.empty() && key.size() < 10 &&
        std::all_of(key.begin(), key.end(), [](char c) { return c >= '0' && c <= '9'; });
    if (!text || !is_number) {
      throw Error("tokenizer_config.json: added_tokens_decoder: \"" + printable(key) +
                  "\": expected an id and a token with content");
    }
    const int64_t id = std::stoll(key);
    if (id >= kMaxVocabSize) {
      throw Error("tokenizer_config.json: added_tokens_decoder: " + key + " is no token id");
    }
    AddedToken token{*text, bool_member(value, "special").value_or(false)};
    if (overwrite) {
      added.insert_or_assign(id, std::move(token));
    } else {
      added.emplace(id, std::move(token));
    }
  }
}

void fill_padding(TokenizerTables& tables, int64_t vocab_size) {
  tables.tokens.resize(static_cast<size_t>(vocab_size));
  tables.types.assign(static_cast<size_t>(vocab_size), as_type(TokenKind::kUnused));
  for (int64_t i = 0; i < vocab_size; ++i)
    tables.tokens[static_cast<size_t>(i)] = "[PAD" + std::to_string(i) + "]";
}

/// Byte-level and SentencePiece-like BPE of a tokenizer.json.
class TokenizerJson {
 public:
  TokenizerJson(const Json& json, const Json& tokenizer_config, TokenizerRequest& request)
      : json_(json), tokenizer_config_(tokenizer_config), request_(request) {}

  TokenizerTables read() {
    model_ = object_member(json_, "model");
    if (!model_) fail("model: expected an object");
    const std::string type = string_member(*model_, "type").value_or("BPE");
    if (type != "BPE") {
      fail("a tokenizer of type " + printable(type) + ", expected BPE or a tokenizer.model");
    }
    read_vocabulary();
    read_merges();
    read_added();
    tables_.ignores_merges = bool_member(*model_, "ignore_merges").value_or(false);
    const bool has_bytes = bool_member(*model_, "byte_fallback").value_or(false);
    has_bytes ? make_sentencepiece() : make_byte_level();
    return std::move(tables_);
  }

 private:
  [[noreturn]] static void fail(const std::string& message) {
    throw Error("tokenizer.json: " + message);
  }

  void check_id(int64_t id, std::string_view text) const {
    if (id < request_.vocab_size) return;
    fail("\"" + printable(text) + "\" has id " + std::to_string(id) + ", but the model has " +
         std::to_string(request_.vocab_size) + " tokens");
  }

  void read_vocabulary() {
    const Json* vocab = object_member(*model_, "vocab");
    if (!vocab) fail("model.vocab: expected an object");
    fill_padding(tables_, request_.vocab_size);
    for (const auto& [text, id_value] : vocab->items()) {
      const int64_t id = checked_id(id_value, "tokenizer.json: model.vocab", text);
      check_id(id, text);
      tables_.tokens[static_cast<size_t>(id)] = text;
      tables_.types[static_cast<size_t>(id)] = as_type(TokenKind::kNormal);
    }
  }

  void read_merges() {
    const Json* merges = array_member(*model_, "merges");
    if (!merges) return;
    tables_.merges.reserve(merges->size());
    for (const Json& merge : *merges) {
      if (merge.is_string()) {
        tables_.merges.push_back(merge.get<std::string>());
      } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
                 merge[1].is_string()) {
        tables_.merges.push_back(merge_part(merge[0]) + " " + merge_part(merge[1]));
      } else {
        fail("model.merges: expected strings or pairs of strings");
      }
    }
  }

  /// A space inside a part would split it: it is written as byte-level BPE writes one.
  static std::string merge_part(const Json& part) {
    std::string text = part.get<std::string>();
    for (size_t at = text.find(' '); at != std::string::npos; at = text.find(' ', at))
      text.replace(at, 1, "\u0120");
    return text;
  }

  void read_added() {
    if (const Json* list = array_member(json_, "added_tokens")) {
      for (const Json& entry : *list) {
        const auto text = string_member(entry, "content");
        const Json* id_value = member(entry, "id");
        if (!text || !id_value) fail("added_tokens: expected a token with id and content");
        const int64_t id = checked_id(*id_value, "tokenizer.json: added_tokens", *text);
        added_.insert_or_assign(id,
                                AddedToken{*text, bool_member(entry, "special").value_or(false)});
      }
    }
    add_from_config(tokenizer_config_, added_, /*overwrite=*/false);
    for (const auto& [id, token] : added_)
      check_id(id, token.text);
  }

  void make_byte_level() {
    tables_.model = "gpt2";
    for (const auto& [id, token] : added_) {
      const bool is_control = token.is_special || looks_special(token.text);
      tables_.tokens[static_cast<size_t>(id)] = is_control ? token.text : with_spaces(token.text);
      tables_.types[static_cast<size_t>(id)] =
          as_type(is_control ? TokenKind::kControl : TokenKind::kUserDefined);
    }
    const Json* pre = object_member(json_, "pre_tokenizer");
    const std::vector<std::string> steps =
        pre ? pre_tokenizer_steps(*pre) : std::vector<std::string>();
    tables_.pre = request_.pre_tokenizer;
    if (tables_.pre.empty()) tables_.pre = recognize_pre_tokenizer(steps).value_or("");
    // The same regexes, but every piece is merged.
    if (tables_.pre == "llama-bpe" && !tables_.ignores_merges) tables_.pre = "smaug-bpe";
    if (!tables_.pre.empty()) return;
    std::string text;
    for (const std::string& step : steps)
      text += (text.empty() ? "" : ", then ") + step;
    fail("the pre-tokenizer is not known, name the one that splits alike: " + printable(text, 400));
  }

  /// The checkpoint has no tokenizer.model, but a BPE that was made from one. Its merges give
  /// scores that merge in the same order: the earlier, the higher.
  void make_sentencepiece() {
    tables_.model = "llama";
    tables_.pre = "default";
    std::unordered_map<std::string, float> score_of;
    for (size_t rank = 0; rank < tables_.merges.size(); ++rank) {
      std::string merged = tables_.merges[rank];
      merged.erase(std::min(merged.find(' '), merged.size() - 1), 1);
      score_of.emplace(std::move(merged), -1.0F - static_cast<float>(rank));
    }
    tables_.merges.clear();
    tables_.scores.assign(tables_.tokens.size(), -1e6F);
    const std::string unknown = string_member(*model_, "unk_token").value_or("<unk>");
    for (size_t i = 0; i < tables_.tokens.size(); ++i) {
      const std::string& text = tables_.tokens[i];
      if (tables_.types[i] != as_type(TokenKind::kNormal)) continue;
      if (const auto found = score_of.find(text); found != score_of.end()) {
        tables_.scores[i] = found->second;
      }
      if (is_byte(text)) tables_.types[i] = as_type(TokenKind::kByte);
      if (text == unknown) tables_.types[i] = as_type(TokenKind::kUnknown);
    }
    for (const auto& [id, token] : added_) {
      const auto i = static_cast<size_t>(id);
      if (tables_.types[i] == as_type(TokenKind::kUnknown)) continue;
      const bool is_control = token.is_special || looks_special(token.text);
      tables_.tokens[i] = is_control ? token.text : with_spaces(token.text);
      tables_.types[i] = as_type(is_control ? TokenKind::kControl : TokenKind::kUserDefined);
      tables_.scores[i] = -1000.0F;
    }
    request_.notes.push_back(
        "no tokenizer.model: the scores of the tokens come from the merges of tokenizer.json");
  }

  static bool is_byte(std::string_view text) {
    return text.size() == 6 && text.starts_with("<0x") && text.ends_with(">") &&
           text.find_first_not_of("0123456789ABCDEFabcdef", 3) == 5;
  }

  const Json& json_;
  const Json& tokenizer_config_;
  TokenizerRequest& request_;
  const Json* model_ = nullptr;
  AddedTokens added_;
  TokenizerTables tables_;
};

void put_token(TokenizerTables& tables, int64_t id, std::string text, TokenKind kind) {
  if (id >= static_cast<int64_t>(tables.tokens.size())) return;
  const auto i = static_cast<size_t>(id);
  tables.tokens[i] = std::move(text);
  tables.scores[i] = -1000.0F;
  tables.types[i] = as_type(kind);
}

TokenizerTables read_sentencepiece(const std::string& bytes, const Json& tokenizer_config,
                                   const TokenizerRequest& request) {
  const std::filesystem::path path = request.dir / "tokenizer.model";
  TokenizerTables tables;
  tables.model = "llama";
  tables.pre = "default";
  fill_padding(tables, request.vocab_size);
  tables.scores.assign(tables.tokens.size(), -10000.0F);
  const std::vector<SentencePiece> pieces = parse_sentencepiece(bytes, path.string());
  const size_t n_kept = std::min(pieces.size(), tables.tokens.size());
  for (size_t i = 0; i < n_kept; ++i) {
    tables.tokens[i] = pieces[i].text;
    tables.scores[i] = pieces[i].score;
    tables.types[i] = as_type(pieces[i].kind);
  }
  if (const auto added = read_json(request.dir / "added_tokens.json", kMaxConfigBytes)) {
    for (const auto& [text, id] : added->items()) {
      put_token(tables, checked_id(id, "added_tokens.json", text), text, TokenKind::kUserDefined);
    }
  }
  AddedTokens added;
  add_from_config(tokenizer_config, added, /*overwrite=*/true);
  for (const auto& [id, token] : added) {
    const bool is_control = token.is_special || looks_special(token.text);
    put_token(tables, id, is_control ? token.text : with_spaces(token.text),
              is_control ? TokenKind::kControl : TokenKind::kUserDefined);
  }
  return tables;
}

/// vocab.json and merges.txt, with added_tokens.json, as the tokenizer.json they would make.
std::optional<Json> read_slow_tokenizer(const std::filesystem::path& dir,
                                        const Json& tokenizer_config) {
  auto vocab = read_json(dir / "vocab.json", kMaxTokenizerBytes);
  const auto merges = read_text(dir / "merges.txt", kMaxTokenizerBytes);
  if (!vocab || !merges) return std::nullopt;
  Json json;
  Json list = Json::array();
  std::istringstream lines(*merges);
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.empty() || line.starts_with("#version")) continue;
    list.push_back(line);
  }
  json["model"] = {{"type", "BPE"}, {"vocab", std::move(*vocab)}, {"merges", std::move(list)}};
  if (const auto added = read_json(dir / "added_tokens.json", kMaxConfigBytes)) {
    for (const auto& [text, id] : added->items())
      json["added_tokens"].push_back({{"id", id}, {"content", text}, {"special", true}});
  }
  const std::string name = string_member(tokenizer_config, "tokenizer_class").value_or("");
  json["pre_tokenizer"] = {{"type", "ByteLevel"}};
  if (name.starts_with("Qwen2Tokenizer")) {
    json["pre_tokenizer"] = {
        {"type", "Split"},
        {"pattern",
         {{"Regex", R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| )"
                    R"(?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}}}};
  }
  return json;
}

}  // namespace

TokenizerTables parse_tokenizer_json(std::string_view text, TokenizerRequest& request) {
  try {
    const Json json = Json::parse(text);
    return TokenizerJson(json, Json::object(), request).read();
  } catch (const Json::exception& error) {
    throw Error("tokenizer.json: no valid JSON: " + printable(error.what(), 200));
  }
}

TokenizerTables read_tokenizer(TokenizerRequest& request) {
  if (request.vocab_size <= 0 || request.vocab_size > kMaxVocabSize) {
    throw Error("config.json: vocab_size: " + std::to_string(request.vocab_size) +
                ", expected 1 to " + std::to_string(kMaxVocabSize));
  }
  const Json tokenizer_config =
      read_json(request.dir / "tokenizer_config.json", kMaxConfigBytes).value_or(Json::object());
  if (const auto bytes = read_text(request.dir / "tokenizer.model", kMaxTokenizerBytes)) {
    return read_sentencepiece(*bytes, tokenizer_config, request);
  }
  auto json = read_json(request.dir / "tokenizer.json", kMaxTokenizerBytes);
  if (!json) json = read_slow_tokenizer(request.dir, tokenizer_config);
  if (!json) {
    throw Error(request.dir.string() +
                ": has no tokenizer.model, tokenizer.json or vocab.json with merges.txt");
  }
  return TokenizerJson(*json, tokenizer_config, request).read();
}

}  // namespace dsctl::gguf::convert
