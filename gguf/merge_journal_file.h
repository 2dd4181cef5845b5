// The journal of a merge in place on disk. Internal to gguf/.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>

#include "gguf/data_copy.h"
#include "gguf/merge_journal.h"

namespace dsctl::gguf {

/// The journal beside `out`, locked while the object lives.
class MergeJournalFile {
 public:
  /// Opens or makes it. Throws Error when another process has it.
  explicit MergeJournalFile(const std::filesystem::path& out);

  /// False when the constructor made the file.
  bool was_there() const { return was_there_; }

  /// What it says; nothing when no work was begun. Throws Error when it is damaged.
  std::optional<MergeJournal> read();
  static std::optional<MergeJournal> read(const DataFile& file);

  /// Forgets all lines; the next one is the first.
  void start_over() { position_ = 0; }

  /// Adds `line`, which is on disk when this returns.
  void append(const std::string& line);

  /// Removes the file: the work is finished or given up.
  void remove();

 private:
  std::filesystem::path path_;
  bool was_there_ = false;
  std::optional<DataFile> file_;
  size_t position_ = 0;  // where the next line goes
};

}  // namespace dsctl::gguf
