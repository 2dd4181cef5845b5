#include "templates/tool_call_parser.h"

#include <algorithm>
#include <utility>

#include "templates/message.h"

namespace dsctl::templates {
namespace {

constexpr std::string_view kSpace = " \t\n\v\f\r";
constexpr std::string_view kFence = "```";
constexpr std::string_view kJsonFence = "```json";
constexpr size_t kMaxNameBytes = 256;
constexpr std::string_view kPlainRecipient = "all";  // functionary's name for the user
constexpr std::string_view kCallType = "function";   // DeepSeek V3 writes it before the name

using Status = JsonScanner::Status;

size_t leading_space(std::string_view text) {
  return std::min(text.find_first_not_of(kSpace), text.size());
}

std::string_view trim(std::string_view text) {
  text.remove_prefix(leading_space(text));
  const size_t last = text.find_last_not_of(kSpace);
  return last == std::string_view::npos ? std::string_view() : text.substr(0, last + 1);
}

/// Length of the longest end of `text` that could be the start of `marker`.
size_t partial_marker(std::string_view text, std::string_view marker) {
  for (size_t length = std::min(text.size(), marker.size() - 1); length > 0; --length) {
    if (text.ends_with(marker.substr(0, length))) return length;
  }
  return 0;
}

/// Whether more text could make `text` begin with `marker`.
bool may_become(std::string_view text, std::string_view marker) {
  return text.size() < marker.size() && marker.starts_with(text);
}

bool starts_with(std::string_view text, std::string_view marker) {
  return !marker.empty() && text.starts_with(marker);
}

}  // namespace

ToolCallParser::ToolCallParser(ToolFormat format, std::vector<std::string> tool_names,
                               int max_calls)
    : format_(std::move(format)),
      tool_names_(std::move(tool_names)),
      max_calls_(max_calls),
      state_(format_.starts_inside ? State::kAfterBegin : State::kText) {}

ToolCallParser::Pieces ToolCallParser::feed(std::string_view text) {
  held_ += text;
  Pieces pieces;
  while (step(pieces)) {
  }
  return pieces;
}

ToolCallParser::Pieces ToolCallParser::finish() {
  Pieces pieces;
  // What waited for more text is decided now: it is what it is.
  switch (state_) {
    case State::kText:
      if (!after_call_ || leading_space(held_) < held_.size()) add_content(held_, pieces);
      break;
    case State::kPython:
      read_python(pieces);
      break;
    case State::kBetween:
      add_content(raw_ + std::string(trim(held_)), pieces);
      break;
    case State::kAfterBegin:
    case State::kJsonCall:
    case State::kName:
    case State::kArguments:
      raw_ += held_;
      held_.clear();
      give_up(pieces);
      break;
    case State::kOver:
      break;
  }
  held_.clear();
  raw_.clear();
  return pieces;
}

/// One decision; false when more text is needed.
bool ToolCallParser::step(Pieces& pieces) {
  switch (state_) {
    case State::kText:
      return read_text(pieces);
    case State::kAfterBegin:
      return read_after_begin(pieces);
    case State::kJsonCall:
      return read_json_call(pieces);
    case State::kName:
      return read_name(pieces);
    case State::kArguments:
      return read_arguments(pieces);
    case State::kBetween:
      return read_between(pieces);
    case State::kPython:
      return false;
    case State::kOver:
      held_.clear();
      return false;
  }
  return false;
}

bool ToolCallParser::read_text(Pieces& pieces) {
  const size_t space = leading_space(held_);
  if (after_call_) {
    held_.erase(0, space);
    if (held_.empty()) return false;
  }
  if (at_start_ && format_.is_json) {
    const std::string_view text = std::string_view(held_).substr(space);
    if (text.empty() || may_become(text, format_.begin)) return false;
    if ((text.front() == '{' || text.front() == '[') && !starts_with(text, format_.begin)) {
      at_start_ = false;
      is_bare_ = true;
      raw_.clear();
      consume(space, true);
      state_ = State::kAfterBegin;
      return true;
    }
  }
  if (space < held_.size()) at_start_ = false;
  // The first marker, and how much of the text's end may still become one.
  size_t found = std::string::npos;
  size_t n_partial = 0;
  const std::string* marker = nullptr;
  const auto look_for = [&](const std::string& candidate) {
    if (candidate.empty()) return;
    const size_t at = held_.find(candidate);
    if (at < found) {
      found = at;
      marker = &candidate;
    }
    n_partial = std::max(n_partial, partial_marker(held_, candidate));
  };
  look_for(format_.begin);
  for (const std::string& candidate : format_.dropped)
    look_for(candidate);
  // Whether white space is content shows only with what comes after it.
  const size_t n_undecided = marker ? held_.size() - found : n_partial;
  const size_t last =
      std::string_view(held_).substr(0, held_.size() - n_undecided).find_last_not_of(kSpace);
  const size_t n_decided = last == std::string::npos ? 0 : last + 1;
  add_content(held_.substr(0, n_decided), pieces);
  if (n_decided > 0) after_call_ = false;
  held_.erase(0, n_decided);
  if (!marker) return false;
  if (marker != &format_.begin) {
    add_content(held_.substr(0, found - n_decided), pieces);
    held_.erase(0, found - n_decided + marker->size());
    return true;
  }
  is_bare_ = false;
  raw_.clear();
  consume(found - n_decided + marker->size(), true);
  state_ = State::kAfterBegin;
  return true;
}

bool ToolCallParser::read_after_begin(Pieces& pieces) {
  skip_space(true);
  const std::string_view text = held_;
  if (text.empty()) return false;
  for (const std::string_view marker : {std::string_view(format_.call_begin), kJsonFence}) {
    if (starts_with(text, marker)) {
      consume(marker.size(), true);
      return true;
    }
    if (may_become(text, marker)) return false;
  }
  if (text.front() == '{' && format_.is_json) {
    object_ = JsonCallReader();
    state_ = State::kJsonCall;
    return true;
  }
  if (text.front() == '[' && format_.is_json && !trim(raw_).ends_with('[')) {
    consume(1, true);
    return true;
  }
  if (!is_bare_ && format_.is_python) {
    state_ = State::kPython;
  } else if (!is_bare_ && !format_.name_end.empty()) {
    state_ = State::kName;
  } else {
    give_up(pieces);
  }
  return true;
}

bool ToolCallParser::read_json_call(Pieces& pieces) {
  size_t n_read = 0;
  Status status = Status::kMore;
  while (n_read < held_.size() && status == Status::kMore) {
    status = object_.take(held_[n_read++]);
    const bool is_refused = (object_.name() && !knows(*object_.name())) ||
                            (is_bare_ && !is_call_open_ && object_.has_foreign_key()) ||
                            (status == Status::kDone && is_bare_ && !object_.has_arguments());
    if (is_refused) status = Status::kBroken;
    // At the same byte however the text was cut.
    const bool is_open = object_.name() && object_.has_begun_arguments();
    if (is_open && !is_refused && !is_call_open_) open_call(*object_.name(), pieces);
  }
  raw_.append(held_, 0, n_read);
  held_.erase(0, n_read);
  if (status == Status::kBroken) {
    // A call whose beginning was shown has shown its last.
    give_up(pieces);
    return true;
  }
  if (status == Status::kDone && !is_call_open_) open_call(*object_.name(), pieces);
  if (is_call_open_) add_arguments(object_.take_arguments(), pieces);
  if (status == Status::kMore) return false;
  close_call(pieces);
  return true;
}

bool ToolCallParser::read_name(Pieces& pieces) {
  const size_t end = held_.find(format_.name_end);
  if (end == std::string::npos) {
    if (held_.size() <= kMaxNameBytes) return false;
    give_up(pieces);
    return true;
  }
  std::string_view name = std::string_view(held_).substr(0, end);
  // Mistral: name[CALL_ID]id[ARGS].
  name = trim(name.substr(0, name.find("[CALL_ID]")));
  if (format_.family == "functionary-v3.2" && name == kPlainRecipient) {
    held_.erase(0, end + format_.name_end.size());
    raw_.clear();
    at_start_ = false;
    state_ = State::kText;
    return true;
  }
  name_ = name;
  consume(end + format_.name_end.size(), true);
  arguments_.clear();
  scanner_ = JsonScanner();
  state_ = State::kArguments;
  return true;
}

bool ToolCallParser::read_arguments(Pieces& pieces) {
  if (arguments_.empty()) {
    skip_space(true);
    if (held_.empty()) return false;
    if (starts_with(held_, kJsonFence)) {
      consume(kJsonFence.size(), true);
      return true;
    }
    if (may_become(held_, kJsonFence)) return false;
    if (held_.front() != '{' && name_ == kCallType && !format_.call_begin.empty()) {
      // DeepSeek V3: the type, then the name on a line of its own.
      const size_t line_end = held_.find('\n');
      if (line_end == std::string::npos && held_.size() <= kMaxNameBytes) return false;
      name_ = trim(std::string_view(held_).substr(0, std::min(line_end, held_.size())));
      consume(std::min(line_end, held_.size()), true);
      return true;
    }
    if (held_.front() != '{' || !knows(name_)) {
      give_up(pieces);
      return true;
    }
    open_call(name_, pieces);
  }
  size_t n_read = 0;
  Status status = Status::kMore;
  while (n_read < held_.size() && status == Status::kMore)
    status = scanner_.take(held_[n_read++]);
  const size_t n_valid = status == Status::kBroken ? n_read - 1 : n_read;
  arguments_.append(held_, 0, n_valid);
  raw_.append(held_, 0, n_valid);
  if (n_valid > 0) add_arguments(held_.substr(0, n_valid), pieces);
  held_.erase(0, n_valid);
  if (status == Status::kMore) return false;
  if (status == Status::kBroken || !is_json_object(arguments_)) {
    give_up(pieces);
  } else {
    close_call(pieces);
  }
  return true;
}

/// Behind a call. Closing markers and commas mean nothing more; anything else is text.
bool ToolCallParser::read_between(Pieces& pieces) {
  skip_space(!raw_.empty());
  const std::string_view text = held_;
  if (text.empty()) return false;
  const std::string_view closing[] = {format_.call_end, format_.end, kFence};
  for (const std::string_view marker : closing) {
    if (!starts_with(text, marker)) continue;
    const bool is_end = marker == format_.end;
    consume(marker.size(), false);
    if (is_end) state_ = State::kText;
    return true;
  }
  for (const std::string& marker : {format_.begin, format_.call_begin}) {
    if (!starts_with(text, marker)) continue;
    raw_.clear();
    is_bare_ = false;
    consume(marker.size(), true);
    state_ = State::kAfterBegin;
    return true;
  }
  for (const std::string_view marker :
       {std::string_view(format_.call_end), std::string_view(format_.end), kFence,
        std::string_view(format_.begin), std::string_view(format_.call_begin)}) {
    if (!marker.empty() && may_become(text, marker)) return false;
  }
  const char c = text.front();
  if (c == ']') {
    consume(1, false);
    return true;
  }
  if (c == ',' || c == ';') {
    consume(1, true);
    return true;
  }
  if (c == '{' && format_.is_json) {
    object_ = JsonCallReader();
    state_ = State::kJsonCall;
    return true;
  }
  add_content(std::exchange(raw_, ""), pieces);
  state_ = State::kText;
  return true;
}

/// The rest of the answer is a call in Python's form, or code for a tool that runs it.
void ToolCallParser::read_python(Pieces& pieces) {
  std::string name;
  std::string arguments;
  if (!parse_python_call(held_, name, arguments) || !knows(name)) {
    name.clear();
    for (const char* interpreter : {"python", "code_interpreter", "ipython"}) {
      if (name.empty() && knows(interpreter)) name = interpreter;
    }
    arguments = Json({{"code", held_}}).dump(-1, ' ', false, Json::error_handler_t::replace);
  }
  raw_ += std::exchange(held_, "");
  if (name.empty()) return give_up(pieces);
  open_call(name, pieces);
  add_arguments(arguments, pieces);
  close_call(pieces);
}

void ToolCallParser::add_content(std::string text, Pieces& pieces) {
  if (text.empty()) return;
  if (pieces.empty() || !pieces.back().calls.empty()) pieces.emplace_back();
  pieces.back().content += text;
}

/// The piece of the open call to add to.
ToolCallPiece& ToolCallParser::call_piece(Pieces& pieces) const {
  if (pieces.empty()) pieces.emplace_back();
  std::vector<ToolCallPiece>& calls = pieces.back().calls;
  const int index = n_opened_ - 1;
  if (calls.empty() || calls.back().index != index) {
    calls.push_back({.index = index, .name = {}, .arguments = {}, .raw = {}});
  }
  return calls.back();
}

void ToolCallParser::open_call(const std::string& name, Pieces& pieces) {
  ++n_opened_;
  call_piece(pieces).name = name;
  is_call_open_ = true;
}

void ToolCallParser::add_arguments(const std::string& text, Pieces& pieces) const {
  if (text.empty()) return;
  call_piece(pieces).arguments += text;
}

void ToolCallParser::close_call(Pieces& pieces) {
  call_piece(pieces).state = ToolCallPiece::State::kDone;
  is_call_open_ = false;
  raw_.clear();
  after_call_ = true;
  at_start_ = false;
  state_ = ++n_calls_ >= max_calls_ ? State::kOver : State::kBetween;
}

/// It was no call: the text that was taken for one goes back to the content.
void ToolCallParser::give_up(Pieces& pieces) {
  if (is_call_open_) {
    ToolCallPiece& call = call_piece(pieces);
    call.state = ToolCallPiece::State::kBroken;
    call.raw = std::exchange(raw_, "");
    is_call_open_ = false;
  } else {
    add_content(std::exchange(raw_, ""), pieces);
  }
  after_call_ = false;
  at_start_ = false;
  state_ = State::kText;
}

void ToolCallParser::consume(size_t n_bytes, bool keep_raw) {
  if (keep_raw) raw_.append(held_, 0, n_bytes);
  held_.erase(0, n_bytes);
}

void ToolCallParser::skip_space(bool keep_raw) {
  consume(leading_space(held_), keep_raw);
}

bool ToolCallParser::knows(std::string_view name) const {
  return std::find(tool_names_.begin(), tool_names_.end(), name) != tool_names_.end();
}

}  // namespace dsctl::templates
