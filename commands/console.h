// Console: all that a command says to and hears from the person in front of it. The program has a
// terminal behind it, tests a recorder.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace dsctl::commands {

class Console {
 public:
  virtual ~Console() = default;
  /// Result text, to standard output, unchanged and at once.
  virtual void print(std::string_view text) = 0;
  /// Notes and timings, to standard error; a newline is added.
  virtual void note(std::string_view line) = 0;
  /// A progress line that overwrites the last one; plain lines, and fewer, when not a terminal.
  /// `total` 0: unknown. `finish_progress` ends it.
  virtual void progress(std::string_view what, int64_t done, int64_t total) = 0;
  virtual void finish_progress() = 0;
  /// Several progress lines that overwrite the last ones, on a terminal; elsewhere only `summary`,
  /// and that every few seconds. `finish_progress` ends them. No colours or control characters.
  virtual void progress_lines(const std::vector<std::string>& /*lines*/,
                              std::string_view /*summary*/) {}
  /// A line typed at `prompt`, with editing and history on a terminal; nothing at the end of input.
  /// `interrupted()` tells Ctrl-C from the end.
  virtual std::optional<std::string> read_line(std::string_view prompt) = 0;
  virtual bool stdin_is_terminal() const = 0;
  virtual bool stdout_is_terminal() const = 0;
  virtual int width() const = 0;  // columns; 80 when unknown
  /// True once Ctrl-C was pressed since the last call of `clear_interrupt`.
  virtual bool interrupted() const = 0;
  virtual void clear_interrupt() = 0;
};

}  // namespace dsctl::commands
