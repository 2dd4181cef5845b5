// Splits what a reasoning model generates into its thoughts and its answer while the text arrives,
// so that a client can show or hide the thoughts without ever seeing the tags around them.
#pragma once

#include <string>
#include <string_view>

#include "templates/chat_template.h"

namespace dsctl::templates {

/// True when the rendered prompt already ends with the opening tag (white space after it aside), so
/// that the reply starts inside the thoughts.
bool prompt_opens_thinking(std::string_view prompt, const TemplateCapabilities& capabilities);

/// A streaming splitter. The sum of its pieces does not depend on how the text was cut: whatever
/// might still become a tag, or white space beside one, is held back until it is decided.
///
/// The opening tag counts only at the start of the text, after white space. White space around the
/// tags belongs to neither part. Text without the opening tag is all content, unchanged.
class ThinkingParser {
 public:
  enum class Start { kBeforeTag, kInside };

  struct Piece {
    std::string thinking;
    std::string content;
  };

  ThinkingParser(std::string open_tag, std::string close_tag, Start start);

  /// Takes the next bytes of the text; returns what is decided so far.
  Piece feed(std::string_view text);

  /// Call once at the end: returns what was held back.
  Piece finish();

  /// True from the opening tag to the closing one.
  bool inside() const { return state_ == State::kAfterOpen || state_ == State::kThinking; }

 private:
  enum class State { kBeforeOpen, kAfterOpen, kThinking, kAfterClose, kContent };

  bool step(Piece& piece);
  bool look_for_open();
  bool skip_after_open();
  bool look_for_close(Piece& piece);

  std::string open_tag_;
  std::string close_tag_;
  State state_;
  std::string held_;
};

}  // namespace dsctl::templates
