// Finds tool calls in what a model writes while the text arrives, so that a client gets calls as
// calls and text as text, whatever markers the model's family puts around them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "templates/json_scanner.h"
#include "templates/tool_format.h"

namespace dsctl::templates {

/// More of one call. A call's pieces follow each other: the first has the name, the arguments of
/// all of them together are a JSON object's text.
struct ToolCallPiece {
  enum class State { kOpen, kDone, kBroken };
  int index = 0;          // of the call in the answer
  std::string name;       // with the first piece only
  std::string arguments;  // text to append
  State state = State::kOpen;
  /// With kBroken: the call turned out to be none (cut off, no valid JSON); this is its whole text,
  /// markers included, for whoever has not shown its pieces.
  std::string raw;
};

/// A streaming reader of one answer. Its result does not depend on how the text was cut.
///
/// What only looks like a call is content, as it was written: bad JSON, a tool that was not
/// offered, arguments that are no object. White space around calls belongs to neither.
class ToolCallParser {
 public:
  struct Piece {
    std::string content;
    std::vector<ToolCallPiece> calls;  // after the content
  };
  using Pieces = std::vector<Piece>;

  /// `tool_names`: the tools that were offered. After `max_calls` calls the rest of the answer is
  /// dropped.
  ToolCallParser(ToolFormat format, std::vector<std::string> tool_names, int max_calls);

  /// Takes the next bytes of the answer; returns what is decided so far.
  Pieces feed(std::string_view text);
  /// Call once at the end: what was held back.
  Pieces finish();

  /// Complete calls so far.
  int n_calls() const { return n_calls_; }
  /// True when the last call that was wanted is complete: nothing more will come.
  bool is_over() const { return state_ == State::kOver; }

 private:
  enum class State {
    kText,
    kAfterBegin,  // the marker was read; what is it?
    kJsonCall,    // inside {"name": ...}
    kName,        // of a call whose name is outside JSON
    kArguments,   // of such a call
    kPython,      // code up to the answer's end
    kBetween,     // behind a call: another one, the end, or text
    kOver,
  };

  bool step(Pieces& pieces);
  bool read_text(Pieces& pieces);
  bool read_after_begin(Pieces& pieces);
  bool read_json_call(Pieces& pieces);
  bool read_name(Pieces& pieces);
  bool read_arguments(Pieces& pieces);
  bool read_between(Pieces& pieces);
  void read_python(Pieces& pieces);

  static void add_content(std::string text, Pieces& pieces);
  ToolCallPiece& call_piece(Pieces& pieces) const;
  void open_call(const std::string& name, Pieces& pieces);
  void add_arguments(const std::string& text, Pieces& pieces) const;
  void close_call(Pieces& pieces);
  void give_up(Pieces& pieces);
  void consume(size_t n_bytes, bool keep_raw);
  void skip_space(bool keep_raw);
  bool knows(std::string_view name) const;

  ToolFormat format_;
  std::vector<std::string> tool_names_;
  int max_calls_;
  State state_;
  std::string held_;           // not decided yet
  std::string raw_;            // decided to be the beginning of a call
  bool at_start_ = true;       // nothing but white space came
  bool is_bare_ = false;       // the call began without a marker
  bool after_call_ = false;    // white space here is no content
  bool is_call_open_ = false;  // its name was returned
  JsonCallReader object_;
  JsonScanner scanner_;
  std::string name_;
  std::string arguments_;
  int n_opened_ = 0;
  int n_calls_ = 0;
};

/// A call in Python's form: f.call(city="Paris", days=3). Arguments become a JSON object; false
/// when it is something else.
bool parse_python_call(std::string_view text, std::string& name, std::string& arguments);

}  // namespace dsctl::templates
