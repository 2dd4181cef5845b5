// Pre-tokenizers: how a text falls into pieces before byte-level BPE, one way for each value of
// `tokenizer.ggml.pre`. The way is defined by an ordered list of regular expressions; the common
// lists also have a scanner written by hand, which must give the same pieces (tested).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace dsctl::engine {

/// Splits text into pieces. Immutable; thread-safe.
class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  /// Appends the end offset of every piece of `text`, ascending; the last one is text.size(). An
  /// invalid byte counts as U+FFFD. `text` is shorter than 4 GiB.
  virtual void split(std::string_view text, std::vector<uint32_t>& piece_ends) const = 0;
};

/// What a value of `tokenizer.ggml.pre` means (constants of the published vocabularies).
struct PreTokenizerSpec {
  std::string_view name;
  /// Regex k splits every piece of step k-1 into its matches and the gaps between them.
  std::span<const std::string_view> regexes;
  bool ignore_merges = false;  // a piece that is a vocabulary entry is taken without merging
  bool adds_bos = false;       // when tokenizer.ggml.add_bos_token is absent
};

/// The entry of `name` ("" is the entry used when the key is absent), or null when it is unknown.
const PreTokenizerSpec* find_pre_tokenizer(std::string_view name);
std::span<const PreTokenizerSpec> all_pre_tokenizers();

/// The fastest pre-tokenizer of `spec`: its scanner if it has one, else the regexes.
std::unique_ptr<PreTokenizer> make_pre_tokenizer(const PreTokenizerSpec& spec);

/// The scanner of `spec`, or null when its list has none.
std::unique_ptr<PreTokenizer> make_scanner(const PreTokenizerSpec& spec);

/// The regexes of `spec` by PCRE2 (JIT where the processor has it). Throws Error when the library
/// cannot compile one.
std::unique_ptr<PreTokenizer> make_regex_splitter(const PreTokenizerSpec& spec);

}  // namespace dsctl::engine
