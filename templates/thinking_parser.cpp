#include "templates/thinking_parser.h"

#include <algorithm>

namespace dsctl::templates {
namespace {

constexpr std::string_view kSpace = " \t\n\v\f\r";

std::string_view trim_left(std::string_view text) {
  const size_t start = text.find_first_not_of(kSpace);
  return start == std::string_view::npos ? std::string_view() : text.substr(start);
}

std::string_view trim_right(std::string_view text) {
  const size_t last = text.find_last_not_of(kSpace);
  return last == std::string_view::npos ? std::string_view() : text.substr(0, last + 1);
}

/// Length of the longest end of `text` that could be the start of `tag`.
size_t partial_tag(std::string_view text, std::string_view tag) {
  for (size_t length = std::min(text.size(), tag.size() - 1); length > 0; --length) {
    if (text.ends_with(tag.substr(0, length))) return length;
  }
  return 0;
}

}  // namespace

bool prompt_opens_thinking(std::string_view prompt, const TemplateCapabilities& capabilities) {
  if (!capabilities.thinking || capabilities.think_open.empty()) return false;
  return trim_right(prompt).ends_with(capabilities.think_open);
}

ThinkingParser::ThinkingParser(std::string open_tag, std::string close_tag, Start start)
    : open_tag_(std::move(open_tag)),
      close_tag_(std::move(close_tag)),
      state_(start == Start::kInside ? State::kAfterOpen : State::kBeforeOpen) {
  // Without tags there is nothing to split.
  if (open_tag_.empty() || close_tag_.empty()) state_ = State::kContent;
}

ThinkingParser::Piece ThinkingParser::feed(std::string_view text) {
  held_ += text;
  Piece piece;
  while (step(piece)) {
  }
  return piece;
}

ThinkingParser::Piece ThinkingParser::finish() {
  Piece piece;
  switch (state_) {
    case State::kBeforeOpen:
    case State::kContent:
      piece.content = held_;
      break;
    case State::kAfterOpen:
    case State::kThinking:
      piece.thinking = trim_right(held_);
      break;
    case State::kAfterClose:
      break;
  }
  held_.clear();
  return piece;
}

/// One decision; false when more text is needed.
bool ThinkingParser::step(Piece& piece) {
  switch (state_) {
    case State::kBeforeOpen:
      return look_for_open();
    case State::kAfterOpen:
      return skip_after_open();
    case State::kThinking:
      return look_for_close(piece);
    case State::kAfterClose:
      held_ = trim_left(held_);
      if (held_.empty()) return false;
      state_ = State::kContent;
      return true;
    case State::kContent:
      piece.content += held_;
      held_.clear();
      return false;
  }
  return false;
}

bool ThinkingParser::look_for_open() {
  const std::string_view text = trim_left(held_);
  if (text.starts_with(open_tag_)) {
    held_ = text.substr(open_tag_.size());
    state_ = State::kAfterOpen;
    return true;
  }
  if (std::string_view(open_tag_).starts_with(text)) return false;
  state_ = State::kContent;
  return true;
}

bool ThinkingParser::skip_after_open() {
  held_ = trim_left(held_);
  if (held_.empty()) return false;
  // A model whose prompt already opened the thoughts may still write the tag itself.
  if (held_.starts_with(open_tag_)) {
    held_.erase(0, open_tag_.size());
    return true;
  }
  if (std::string_view(open_tag_).starts_with(held_)) return false;
  state_ = State::kThinking;
  return true;
}

bool ThinkingParser::look_for_close(Piece& piece) {
  if (const size_t found = held_.find(close_tag_); found != std::string::npos) {
    piece.thinking += trim_right(std::string_view(held_).substr(0, found));
    held_.erase(0, found + close_tag_.size());
    state_ = State::kAfterClose;
    return true;
  }
  std::string_view decided = held_;
  decided.remove_suffix(partial_tag(held_, close_tag_));
  decided = trim_right(decided);
  piece.thinking += decided;
  held_.erase(0, decided.size());
  return false;
}

}  // namespace dsctl::templates
