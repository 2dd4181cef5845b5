#include "gguf/convert/special_tokens.h"

#include <algorithm>
#include <map>
#include <optional>

#include "gguf/convert/json_file.h"
#include "gguf/error.h"
#include "gguf/printable.h"

namespace dsctl::gguf::convert {
namespace {

namespace fs = std::filesystem;

std::string id_key(std::string_view kind) {
  // The misspelt one is the format's.
  static const std::map<std::string_view, std::string_view> names = {
      {"unk", "unknown"}, {"sep", "seperator"}, {"pad", "padding"}};
  const auto found = names.find(kind);
  return "tokenizer.ggml." + std::string(found == names.end() ? kind : found->second) + "_token_id";
}

/// A token of tokenizer_config.json: a string or an object with content; "" when there is none.
std::string token_text(const Json& config, const std::string& key) {
  if (const auto text = string_member(config, key)) return *text;
  const Json* object = object_member(config, key);
  return object ? string_member(*object, "content").value_or("") : "";
}

/// The id of the special token in one step of a TemplateProcessing; "" when it is a sequence.
std::string special_of(const Json& step) {
  const Json* token = object_member(step, "SpecialToken");
  return token ? string_member(*token, "id").value_or("") : "";
}

std::string sequence_of(const Json& step) {
  const Json* sequence = object_member(step, "Sequence");
  return sequence ? string_member(*sequence, "id").value_or("") : "";
}

class SpecialTokens {
 public:
  SpecialTokens(const SpecialTokenRequest& request, MetadataList& metadata)
      : request_(request), metadata_(metadata) {}

  void add() {
    auto tokenizer = read_json(request_.dir / "tokenizer.json", kMaxTokenizerBytes);
    auto config = read_json(request_.dir / "tokenizer_config.json", kMaxConfigBytes);
    if (tokenizer) tokenizer_ = std::move(*tokenizer);
    if (config) config_ = std::move(*config);
    has_config_ = config_.is_object() && !config_.empty();
    if (const Json* normalizer = object_member(tokenizer_, "normalizer")) {
      read_normalizer(*normalizer, 0);
    }
    if (tokenizer_.is_object()) read_post_processor();
    if (has_config_) {
      read_chat_template();
      read_config_tokens();
    }
    read_model_config();
    write();
  }

 private:
  struct Flag {
    std::string kind;
    bool value = false;
  };

  void set_flag(std::string_view kind, bool value) {
    for (Flag& flag : add_flags_) {
      if (flag.kind != kind) continue;
      flag.value = value;
      return;
    }
    add_flags_.push_back({std::string(kind), value});
  }
  bool has_flag(std::string_view kind) const {
    return std::any_of(add_flags_.begin(), add_flags_.end(),
                       [&](const Flag& flag) { return flag.kind == kind; });
  }
  void set_id(const std::string& kind, const Json& value) {
    if (!value.is_number_integer() || value.is_boolean()) return;
    const int64_t id = value.get<int64_t>();
    if (id < 0 || id > INT32_MAX) {
      throw Error(kind + "_token_id: " + printable(value.dump(), 40) + ", expected a token id");
    }
    if (request_.vocab_size > 0 && id >= request_.vocab_size) return;
    const bool known = std::any_of(ids_.begin(), ids_.end(),
                                   [&](const auto& entry) { return entry.first == kind; });
    if (!known) ids_.emplace_back(kind, static_cast<uint32_t>(id));
  }

  void read_normalizer(const Json& normalizer, int depth) {
    const std::string type = string_member(normalizer, "type").value_or("");
    if (type == "Lowercase") lowercase_ = true;
    if (type == "NFC") nfc_ = true;
    if (type == "StripAccents") strip_accents_ = true;
    const Json* parts = array_member(normalizer, "normalizers");
    if (type != "Sequence" || !parts || depth > 8) return;
    for (const Json& part : *parts)
      read_normalizer(part, depth + 1);
  }

  void read_post_processor() {
    bos_ = token_text(config_, "bos_token");
    eos_ = token_text(config_, "eos_token");
    cls_ = token_text(config_, "cls_token");
    sep_ = token_text(config_, "sep_token");
    if (has_config_ && bos_.empty() && !cls_.empty()) config_["bos_token"] = bos_ = cls_;
    if (has_config_ && eos_.empty() && !sep_.empty()) config_["eos_token"] = eos_ = sep_;
    const Json* processor = object_member(tokenizer_, "post_processor");
    if (!processor) return;
    const Json* parts = array_member(*processor, "processors");
    if (!parts) return read_processor(*processor);
    for (const Json& part : *parts)
      read_processor(part);
  }

  void read_processor(const Json& processor) {
    const std::string type = string_member(processor, "type").value_or("");
    if (type == "ByteLevel") {
      if (!has_flag("bos")) set_flag("bos", false);
      if (!has_flag("eos")) set_flag("eos", false);
    }
    if (type == "TemplateProcessing") read_template(processor);
  }

  /// What a template for one text begins and ends with. Odd templates are read as plain ones.
  void read_template(const Json& processor) {
    const Json* single = array_member(processor, "single");
    std::string first;
    std::string last;
    if (single && single->size() > 1) {
      first = special_of(single->front());
      last = special_of(single->back());
      if (!first.empty()) read_first(first);
      if (!last.empty()) read_last(last);
    }
    if (const Json* pair = array_member(processor, "pair"); pair && !pair->empty()) {
      read_pair(*pair, first, last);
    }
  }

  void read_first(const std::string& first) {
    if (!has_config_) {
      bos_ = first;
    } else if (first != bos_ && first != cls_) {
      if (bos_.empty()) config_["bos_token"] = bos_ = first;
      if (cls_.empty()) config_["cls_token"] = cls_ = first;
    }
    set_flag("bos", first == bos_ || first == cls_);
  }

  void read_last(const std::string& last) {
    if (!has_config_) {
      eos_ = last;
    } else if (last != eos_) {
      // The one that was given ends a turn or a message then.
      for (const char* kind : {"eot", "eom"}) {
        if (std::find(kinds_.begin(), kinds_.end(), kind) != kinds_.end()) continue;
        kinds_.emplace_back(kind);
        config_[std::string(kind) + "_token"] = eos_;
        break;
      }
      config_["eos_token"] = eos_ = last;
    }
    set_flag("eos", last == eos_);
  }

  /// A pair of texts says whether a separator lies between them.
  void read_pair(const Json& pair, const std::string& first, const std::string& last) {
    size_t begin = !first.empty() && special_of(pair.front()) == first ? 1 : 0;
    size_t end = pair.size();
    if (!last.empty() && special_of(pair.back()) == last && end > begin) --end;
    if (begin >= end || sequence_of(pair[begin]) != "A" || sequence_of(pair[end - 1]) != "B") {
      return;
    }
    ++begin;
    --end;
    if (begin >= end) return;
    bool adds_separator = false;
    const std::string one = special_of(pair[begin]);
    if (!one.empty() && (one == sep_ || one == eos_) && last.empty()) adds_separator = true;
    if (end - begin == 2) {
      const std::string two = special_of(pair[begin + 1]);
      if (!two.empty() && (two == sep_ || two == eos_)) adds_separator = true;
    }
    set_flag("sep", adds_separator);
    if (adds_separator && sep_.empty() && has_config_) config_["sep_token"] = eos_;
  }

  void read_chat_template() {
    if (const Json* value = member(config_, "chat_template")) {
      chat_template_ = *value;
      return;
    }
    if (config_.contains("chat_template")) return;  // null: none
    const auto jinja = read_text(request_.dir / "chat_template.jinja", kMaxConfigBytes);
    if (!jinja) {
      const auto json = read_json(request_.dir / "chat_template.json", kMaxConfigBytes);
      if (json) chat_template_ = json->value("chat_template", Json());
      return;
    }
    chat_template_ = *jinja;
    std::error_code error;
    std::vector<fs::path> more;
    for (fs::directory_iterator entry(request_.dir / "additional_chat_templates", error), end;
         !error && entry != end; entry.increment(error)) {
      if (entry->path().extension() == ".jinja") more.push_back(entry->path());
    }
    if (more.empty()) return;
    std::sort(more.begin(), more.end());
    chat_template_ = Json::array({{{"name", "default"}, {"template", *jinja}}});
    for (const fs::path& path : more) {
      chat_template_.push_back({{"name", path.stem().string()},
                                {"template", read_text(path, kMaxConfigBytes).value_or("")}});
    }
  }

  void read_config_tokens() {
    const Json* added = array_member(tokenizer_, "added_tokens");
    for (const std::string& kind : kinds_) {
      const auto flag = bool_member(config_, "add_" + kind + "_token");
      // What tokenizer.json does is the truth: transformers runs it.
      if (flag && !has_flag(kind)) set_flag(kind, *flag);
      const std::string text = token_text(config_, kind + "_token");
      if (text.empty() || !added) continue;
      for (const Json& token : *added) {
        if (string_member(token, "content") != text) continue;
        if (const Json* id = member(token, "id")) set_id(kind, *id);
        break;
      }
    }
  }

  void read_model_config() {
    const auto config = read_json(request_.dir / "config.json", kMaxConfigBytes);
    if (!config) return;
    for (const std::string& kind : kinds_) {
      const Json* id = member(*config, kind + "_token_id");
      if (!id) {
        const Json* text = object_member(*config, "text_config");
        if (text) id = member(*text, kind + "_token_id");
      }
      if (id) set_id(kind, *id);
    }
  }

  void write() {
    metadata_.set("tokenizer.ggml.merges", request_.merges);
    for (const auto& [kind, id] : ids_) {
      if (kind != "cls") metadata_.set(id_key(kind), id);
    }
    for (const auto& [kind, value] : add_flags_) {
      if (kind == "bos" || kind == "eos" || kind == "sep") {
        metadata_.set("tokenizer.ggml.add_" + kind + "_token", value);
      }
    }
    write_chat_template();
    if (nfc_) metadata_.set("tokenizer.ggml.normalizer.nfc", true);
    if (lowercase_) metadata_.set("tokenizer.ggml.normalizer.lowercase", true);
    if (strip_accents_) metadata_.set("tokenizer.ggml.normalizer.strip_accents", true);
  }

  void write_chat_template() {
    if (chat_template_.is_string()) {
      metadata_.set("tokenizer.chat_template", chat_template_.get<std::string>());
    }
    if (!chat_template_.is_array()) return;
    std::vector<std::string> names;
    std::string default_template;
    for (const Json& choice : chat_template_) {
      std::string name = string_member(choice, "name").value_or("");
      const auto text = string_member(choice, "template");
      for (char& c : name) {
        const bool is_plain =
            (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!is_plain) c = '_';
      }
      if (name.empty() || !text) continue;
      if (name == "default") {
        default_template = *text;
        continue;
      }
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
      metadata_.set("tokenizer.chat_template." + name, *text);
    }
    metadata_.set("tokenizer.chat_templates", names);
    metadata_.set("tokenizer.chat_template", default_template);
  }

  const SpecialTokenRequest& request_;
  MetadataList& metadata_;
  Json tokenizer_;
  Json config_ = Json::object();
  bool has_config_ = false;
  std::vector<std::string> kinds_ = {"bos", "eos", "unk", "sep", "pad", "cls", "mask"};
  std::string bos_, eos_, cls_, sep_;
  std::vector<std::pair<std::string, uint32_t>> ids_;
  std::vector<Flag> add_flags_;
  Json chat_template_;
  bool nfc_ = false;
  bool lowercase_ = false;
  bool strip_accents_ = false;
};

}  // namespace

void add_special_tokens(const SpecialTokenRequest& request, MetadataList& metadata) {
  SpecialTokens(request, metadata).add();
}

}  // namespace dsctl::gguf::convert
