// Special tokens that are known by their text (specification: tokenizers.md, section 5).
#include <algorithm>
#include <span>
#include <unordered_map>

#include "engine/tokenizer/vocabulary.h"

namespace dsctl::engine {

namespace {

using Texts = std::span<const std::string_view>;

constexpr std::string_view kFirstBytes = "<_[\xE2";  // of all texts below

constexpr std::string_view kEndOfTurn[] = {
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>",        "<|endoftext|>",
    "<EOT>",      "_<EOT>",     "[EOT]",   "<｜end▁of▁sentence｜>"};
constexpr std::string_view kEndOfMessage[] = {"<|eom_id|>"};
constexpr std::string_view kFimPrefix[] = {"<|fim_prefix|>",  "<fim-prefix>", "<fim_prefix>",
                                           "<｜fim▁begin｜>", "<PRE>",        "▁<PRE>",
                                           "<|code_prefix|>"};
// DeepSeek's "hole" stands where the text to be written goes, before the suffix.
constexpr std::string_view kFimSuffix[] = {"<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>",
                                           "<｜fim▁hole｜>", "<SUF>",        "▁<SUF>",
                                           "<|code_suffix|>"};
constexpr std::string_view kFimMiddle[] = {"<|fim_middle|>", "<fim-middle>", "<fim_middle>",
                                           "<｜fim▁end｜>",  "<MID>",        "▁<MID>",
                                           "<|code_middle|>"};
constexpr std::string_view kFimPad[] = {"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>"};
constexpr std::string_view kFimRepository[] = {"<|fim_repo|>", "<|repo_name|>", "<fim-repo>",
                                               "<fim_repo>",   "<REPO>",        "<reponame>"};
constexpr std::string_view kFimSeparator[] = {"<|file_sep|>"};
constexpr std::string_view kEndOfGeneration[] = {
    "<|eot_id|>", "<|im_end|>",    "<|end|>",         "<|return|>",         "<|call|>", "<|flush|>",
    "<|calls|>",  "<end_of_turn>", "<|endoftext|>",   "<|eom_id|>",         "<EOT>",    "_<EOT>",
    "[EOT]",      "[EOS]",         "<|end_of_text|>", "<end_of_utterance>", "<eos>"};

/// Finds tokens by text and makes them control tokens. Looks through the vocabulary once: a table
/// of all its texts would take longer to build than the rest of this file runs.
class Finder {
 public:
  explicit Finder(Vocabulary& vocabulary) : vocabulary_(vocabulary) {
    for (const Texts texts :
         {Texts(kEndOfTurn), Texts(kEndOfMessage), Texts(kFimPrefix), Texts(kFimSuffix),
          Texts(kFimMiddle), Texts(kFimPad), Texts(kFimRepository), Texts(kFimSeparator),
          Texts(kEndOfGeneration)}) {
      for (const std::string_view text : texts)
        ids_.try_emplace(text, -1);
    }
    for (int32_t id = 0; id < vocabulary.size(); ++id) {
      const std::string& text = vocabulary.tokens[static_cast<size_t>(id)];
      if (text.empty() || kFirstBytes.find(text[0]) == kFirstBytes.npos) continue;
      const auto it = ids_.find(text);
      if (it != ids_.end()) it->second = id;
    }
  }

  /// `text` is one of the texts above.
  int32_t find(std::string_view text) {
    const int32_t id = ids_.at(text);
    if (id >= 0) vocabulary_.types[static_cast<size_t>(id)] = TokenType::kControl;
    return id;
  }

  /// Leaves `id` when the file has named it.
  void find_first(int32_t& id, Texts texts) {
    for (const std::string_view text : texts) {
      if (id < 0) id = find(text);
    }
  }

 private:
  Vocabulary& vocabulary_;
  std::unordered_map<std::string_view, int32_t> ids_;
};

}  // namespace

void find_special_tokens(Vocabulary& vocabulary, const std::vector<int32_t>& more_eog) {
  Finder finder(vocabulary);
  finder.find_first(vocabulary.eot, kEndOfTurn);
  finder.find_first(vocabulary.eom, kEndOfMessage);
  finder.find_first(vocabulary.fim.prefix, kFimPrefix);
  finder.find_first(vocabulary.fim.suffix, kFimSuffix);
  finder.find_first(vocabulary.fim.middle, kFimMiddle);
  finder.find_first(vocabulary.fim.pad, kFimPad);
  finder.find_first(vocabulary.fim.repository, kFimRepository);
  finder.find_first(vocabulary.fim.separator, kFimSeparator);

  std::vector<int32_t> eog = more_eog;
  for (const std::string_view text : kEndOfGeneration)
    eog.push_back(finder.find(text));
  for (const int32_t id : {vocabulary.eos, vocabulary.eot, vocabulary.eom, vocabulary.fim.pad,
                           vocabulary.fim.repository, vocabulary.fim.separator}) {
    eog.push_back(id);
  }
  // In the harmony format of gpt-oss <|end|> only closes one channel's message.
  if (finder.find("<|return|>") >= 0 && finder.find("<|call|>") >= 0) {
    std::erase(eog, finder.find("<|end|>"));
  }
  std::erase(eog, -1);
  std::ranges::sort(eog);
  eog.erase(std::unique(eog.begin(), eog.end()), eog.end());
  vocabulary.eog = std::move(eog);
}

}  // namespace dsctl::engine
