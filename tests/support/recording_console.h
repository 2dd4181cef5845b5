// A Console without a person: keeps what is said, answers with lines given before.
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "commands/console.h"

namespace dsctl::tests {

class RecordingConsole : public commands::Console {
 public:
  void print(std::string_view text) override { printed += text; }
  void note(std::string_view line) override { notes += std::string(line) + "\n"; }
  void progress(std::string_view what, int64_t done, int64_t total) override {
    progress_lines_said.push_back(std::string(what) + " " + std::to_string(done) + "/" +
                                  std::to_string(total));
  }
  void progress_lines(const std::vector<std::string>& lines, std::string_view summary) override {
    progress_lines_shown = lines;
    summaries.emplace_back(summary);
  }
  void finish_progress() override {}
  std::optional<std::string> read_line(std::string_view) override {
    if (input.empty()) return std::nullopt;
    std::string line = std::move(input.front());
    input.pop_front();
    return line;
  }
  bool stdin_is_terminal() const override { return false; }
  bool stdout_is_terminal() const override { return false; }
  int width() const override { return 80; }
  bool interrupted() const override { return is_interrupted; }
  void clear_interrupt() override { is_interrupted = false; }

  std::string printed;
  std::string notes;
  std::vector<std::string> progress_lines_said;
  std::vector<std::string> progress_lines_shown;
  std::vector<std::string> summaries;
  std::deque<std::string> input;
  bool is_interrupted = false;
};

}  // namespace dsctl::tests
