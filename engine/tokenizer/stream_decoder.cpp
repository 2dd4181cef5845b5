#include "engine/tokenizer/stream_decoder.h"

#include <algorithm>
#include <utility>

#include "engine/tokenizer/unicode.h"

namespace dsctl::engine {

namespace {

/// How many bytes at the end of `text` are a beginning of `stop`, though not all of it.
size_t n_held_for(std::string_view text, std::string_view stop) {
  for (size_t n = std::min(text.size(), stop.size() - 1); n > 0; --n) {
    if (text.ends_with(stop.substr(0, n))) return n;
  }
  return 0;
}

}  // namespace

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, std::vector<std::string> stop_strings,
                             SpecialTokens special, int32_t previous_token)
    : tokenizer_(tokenizer),
      stop_strings_(std::move(stop_strings)),
      special_(special),
      after_special_(previous_token < 0 || tokenizer.begins_fragment_after(previous_token)) {
  std::erase_if(stop_strings_, [](const std::string& stop) { return stop.empty(); });
}

std::string StreamDecoder::push(int32_t token) {
  if (stopped_) return {};
  std::string_view piece = tokenizer_.piece(token, special_);
  if (after_special_ && tokenizer_.adds_space_prefix() && piece.starts_with(' ')) {
    piece.remove_prefix(1);
  }
  after_special_ = tokenizer_.begins_fragment_after(token);
  if (piece.empty()) return {};
  pending_bytes_ += piece;
  const size_t n_complete = pending_bytes_.size() - incomplete_utf8_tail(pending_bytes_);
  std::string complete =
      replace_invalid_utf8(std::string_view(pending_bytes_).substr(0, n_complete));
  pending_bytes_.erase(0, n_complete);
  return release(std::move(complete));
}

std::string StreamDecoder::finish() {
  if (stopped_) return {};
  std::string text = release(replace_invalid_utf8(pending_bytes_));
  pending_bytes_.clear();
  if (!stopped_) text += held_;
  held_.clear();
  return text;
}

std::string StreamDecoder::release(std::string text) {
  held_ += text;
  size_t first_stop = std::string::npos;
  size_t n_held = 0;
  for (const std::string& stop : stop_strings_) {
    const size_t at = held_.find(stop);
    if (at < first_stop) {
      first_stop = at;
      stop_string_ = stop;
    }
    n_held = std::max(n_held, n_held_for(held_, stop));
  }
  stopped_ = first_stop != std::string::npos;
  std::string out = held_.substr(0, stopped_ ? first_stop : held_.size() - n_held);
  held_ = stopped_ ? std::string() : held_.substr(out.size());
  return out;
}

}  // namespace dsctl::engine
