#include "cli/terminal.h"

#include <fcntl.h>
#include <histedit.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <clocale>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <utility>

#include "commands/model_info.h"

namespace dsctl::cli {
namespace {

namespace fs = std::filesystem;

// The only state a signal handler may touch. A second Ctrl-C while the first is unheard ends the
// program: a command that does not listen must still be stoppable.
std::atomic<int> interrupt_count{0};

void on_interrupt(int) {
  if (interrupt_count.fetch_add(1) >= 1) _exit(130);
}

// Bracketed paste: a terminal that was asked to puts marks around pasted text.
constexpr std::string_view kPasteOn = "\x1b[?2004h";
constexpr std::string_view kPasteOff = "\x1b[?2004l";
constexpr const char* kPasteBegin = "\\e[200~";
constexpr std::string_view kPasteEnd = "\x1b[201~";
constexpr size_t kMaxPasteBytes = 1 << 20;

class Terminal final : public commands::Console {
 public:
  Terminal()
      : stdin_tty_(isatty(0) == 1), stdout_tty_(isatty(1) == 1), stderr_tty_(isatty(2) == 1) {
    struct sigaction action {};
    action.sa_handler = on_interrupt;
    sigemptyset(&action.sa_mask);
    // No SA_RESTART: a read that waits for the person must return.
    sigaction(SIGINT, &action, nullptr);
    std::signal(SIGPIPE, SIG_IGN);
    std::signal(SIGXFSZ, SIG_IGN);  // a file that may not grow is an error of the write
  }

  ~Terminal() override {
    finish_progress();
    if (history_) {
      save_history();
      history_end(history_);
    }
    if (edit_) el_end(edit_);
  }

  void print(std::string_view text) override {
    finish_progress();
    write_all(1, text);
  }

  void note(std::string_view line) override {
    finish_progress();
    write_all(2, std::string(line) + "\n");
  }

  void progress(std::string_view what, int64_t done, int64_t total) override {
    using std::chrono::steady_clock;
    const auto now = steady_clock::now();
    const bool same = what == progress_what_;
    const auto pause = stderr_tty_ ? std::chrono::milliseconds(100) : std::chrono::seconds(10);
    if (same && now - progress_time_ < pause && done != total) return;
    progress_time_ = now;
    progress_what_ = what;
    std::string line(what);
    if (total > 0) {
      const int percent =
          static_cast<int>(100.0 * static_cast<double>(done) / static_cast<double>(total));
      line += ": " + std::to_string(percent) + "% " + commands::format_size(done) + "/" +
              commands::format_size(total);
    } else if (done > 0) {
      line += ": " + commands::format_size(done);
    }
    if (stderr_tty_) {
      write_all(2, "\r\x1b[K" + line);
      progress_open_ = true;
    } else {
      write_all(2, line + "\n");
    }
  }

  void progress_lines(const std::vector<std::string>& lines, std::string_view summary) override {
    using std::chrono::steady_clock;
    if (!stderr_tty_) {
      const auto now = steady_clock::now();
      if (now - progress_time_ < std::chrono::seconds(5)) return;
      progress_time_ = now;
      write_all(2, std::string(summary) + "\n");
      return;
    }
    std::string text = erase_lines();
    const size_t columns = static_cast<size_t>(width());
    for (const std::string& line : lines)
      text += fitted(line, columns) + "\x1b[K\n";
    write_all(2, text);
    n_progress_lines_ = lines.size();
  }

  void finish_progress() override {
    if (n_progress_lines_ > 0) write_all(2, erase_lines());
    progress_what_.clear();
    if (!progress_open_) return;
    progress_open_ = false;
    write_all(2, "\r\x1b[K");
  }

  std::optional<std::string> read_line(std::string_view prompt) override {
    finish_progress();
    if (!stdin_tty_ || !stdout_tty_) return read_plain_line();
    return read_edited_line(prompt);
  }

  bool stdin_is_terminal() const override { return stdin_tty_; }
  bool stdout_is_terminal() const override { return stdout_tty_; }

  int width() const override {
    winsize size{};
    if (ioctl(1, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
    return 80;
  }

  bool interrupted() const override { return interrupt_count.load() > 0; }
  void clear_interrupt() override { interrupt_count.store(0); }

 private:
  /// What takes the lines of `progress_lines` away; the cursor is where they began.
  std::string erase_lines() {
    const size_t n = std::exchange(n_progress_lines_, 0);
    return n == 0 ? "" : "\x1b[" + std::to_string(n) + "A\r\x1b[J";
  }

  /// As much of a line as fits without a wrap; a character is taken for one column.
  static std::string fitted(const std::string& line, size_t columns) {
    size_t used = 0;
    for (size_t i = 0; i < line.size(); ++i) {
      const bool begins = (static_cast<unsigned char>(line[i]) & 0xc0) != 0x80;
      if (begins && ++used > columns) return line.substr(0, i);
    }
    return line;
  }

  static void write_all(int fd, std::string_view text) {
    while (!text.empty()) {
      const ssize_t n = ::write(fd, text.data(), text.size());
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return;  // a closed pipe: nobody reads, nothing to tell
      text.remove_prefix(static_cast<size_t>(n));
    }
  }

  std::optional<std::string> read_plain_line() {
    std::string line;
    if (!std::getline(std::cin, line)) return std::nullopt;
    return line;
  }

  std::optional<std::string> read_edited_line(std::string_view prompt) {
    open_editor();
    prompt_ = prompt;
    int count = 0;
    write_all(1, kPasteOn);
    const char* text = el_gets(edit_, &count);
    write_all(1, kPasteOff);
    if (!text || count <= 0) {
      write_all(1, "\n");
      return std::nullopt;
    }
    std::string line(text, static_cast<size_t>(count));
    while (!line.empty() && (line.back() == '\n' || line.back() == '\r'))
      line.pop_back();
    if (!line.empty()) {
      HistEvent event;
      history(history_, &event, H_ENTER, line.c_str());
    }
    return line;
  }

  // Takes the text up to the end mark as it is: line ends in it do not end the input.
  static unsigned char insert_paste(EditLine* edit, int /*key*/) {
    std::string text;
    while (text.size() < kMaxPasteBytes && !text.ends_with(kPasteEnd)) {
      char c = 0;
      if (el_getc(edit, &c) != 1) return CC_EOF;
      text += c == '\r' ? '\n' : c;
    }
    if (text.ends_with(kPasteEnd)) text.resize(text.size() - kPasteEnd.size());
    while (!text.empty() && text.back() == '\n')
      text.pop_back();
    if (text.empty()) return CC_NORM;
    return el_insertstr(edit, text.c_str()) == 0 ? CC_REFRESH : CC_ERROR;
  }

  static char* current_prompt(EditLine* edit) {
    void* self = nullptr;
    el_get(edit, EL_CLIENTDATA, &self);
    return static_cast<Terminal*>(self)->prompt_.data();
  }

  void open_editor() {
    if (edit_) return;
    // libedit counts columns by the locale; without one it takes UTF-8 for garbage.
    if (const char* locale = std::setlocale(LC_CTYPE, ""); !locale || MB_CUR_MAX == 1) {
      std::setlocale(LC_CTYPE, "C.UTF-8");
    }
    edit_ = el_init("dsctl", stdin, stdout, stderr);
    el_set(edit_, EL_CLIENTDATA, this);
    el_set(edit_, EL_PROMPT, &Terminal::current_prompt);
    el_set(edit_, EL_EDITOR, "emacs");
    el_set(edit_, EL_SIGNAL, 0);
    // Between these marks a terminal sends what is pasted (see kPasteOn).
    el_set(edit_, EL_ADDFN, "dsctl-paste", "insert pasted text", &Terminal::insert_paste);
    el_set(edit_, EL_BIND, kPasteBegin, "dsctl-paste", nullptr);
    el_set(edit_, EL_BIND, "^L", "ed-clear-screen", nullptr);
    el_set(edit_, EL_BIND, "\\e[H", "ed-move-to-beg", nullptr);
    el_set(edit_, EL_BIND, "\\e[F", "ed-move-to-end", nullptr);
    history_ = history_init();
    HistEvent event;
    history(history_, &event, H_SETSIZE, 100);
    history(history_, &event, H_SETUNIQUE, 1);
    el_set(edit_, EL_HIST, history, history_);
    if (const fs::path path = history_path(); !path.empty()) {
      history(history_, &event, H_LOAD, path.c_str());
    }
  }

  static fs::path history_path() {
    if (const char* state = std::getenv("XDG_STATE_HOME"); state && *state) {
      return fs::path(state) / "dsctl" / "history";
    }
    const char* home = std::getenv("HOME");
    return home && *home ? fs::path(home) / ".local/state/dsctl/history" : fs::path();
  }

  void save_history() {
    const fs::path path = history_path();
    if (path.empty()) return;
    std::error_code ignored;
    fs::create_directories(path.parent_path(), ignored);
    // What a person typed to a model is theirs alone.
    const int fd = ::open(path.c_str(), O_CREAT | O_WRONLY, 0600);
    if (fd >= 0) ::close(fd);
    HistEvent event;
    history(history_, &event, H_SAVE, path.c_str());
  }

  bool stdin_tty_ = false;
  bool stdout_tty_ = false;
  bool stderr_tty_ = false;
  bool progress_open_ = false;
  size_t n_progress_lines_ = 0;  // that stand above the cursor
  std::string progress_what_;
  std::chrono::steady_clock::time_point progress_time_;
  std::string prompt_;
  EditLine* edit_ = nullptr;
  History* history_ = nullptr;
};

}  // namespace

std::unique_ptr<commands::Console> make_terminal() {
  return std::make_unique<Terminal>();
}

}  // namespace dsctl::cli
