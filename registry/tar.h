// Tar, read and written as a stream: ustar with pax records for what ustar can't say (sizes from
// 8 GiB, long paths). GNU's long names and binary sizes are read too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace dsctl::registry {

/// Where an archive's bytes come from.
struct TarInput {
  /// Fills a part of the span, at least one byte; 0 at the end.
  std::function<size_t(std::span<std::byte>)> read;
  /// Goes `n` bytes on without reading them, or returns false: then they are read. May be empty.
  std::function<bool(int64_t n)> skip;
};

enum class TarEntryType { kFile, kDirectory, kLink, kOther };

/// One entry. The path is as the archive has it: it may be anything, so check it before use.
struct TarEntry {
  std::string path;
  TarEntryType type = TarEntryType::kFile;
  int64_t size_bytes = 0;  // of the data that follows
};

/// Reads the entries of an archive in order. Everything throws Error "archive: byte N: ..." when
/// the bytes are no tar, damaged, cut short or larger than sense (a path over 4 KiB).
class TarReader {
 public:
  explicit TarReader(TarInput input);

  /// The next entry, past what is left of this one; nothing at the archive's end mark.
  std::optional<TarEntry> next();

  /// Bytes of the current entry's data: at least one, 0 after the last.
  size_t read(std::span<std::byte> out);

  /// Bytes of the archive that were consumed.
  int64_t position_bytes() const { return position_; }

 private:
  struct Overrides;
  [[noreturn]] void fail(const std::string& what) const;
  bool read_block(std::span<std::byte> block);
  void skip(int64_t n);
  std::string read_text(int64_t size_bytes, int64_t max_bytes, std::string_view what);
  void read_pax(const std::string& records, Overrides& overrides) const;

  TarInput input_;
  int64_t position_ = 0;
  int64_t remaining_ = 0;  // data of the current entry
  int64_t padding_ = 0;    // after it, up to a whole block
  bool ended_ = false;
};

/// Writes an archive of regular files owned by nobody, with mode 0644.
class TarWriter {
 public:
  /// `write` is given the archive's bytes in order.
  explicit TarWriter(std::function<void(std::string_view)> write);

  /// Starts a file of `size_bytes`, which `write` must then give exactly.
  void begin(std::string_view path, int64_t size_bytes, int64_t mtime_s);
  void write(std::string_view data);
  /// The end mark. Nothing may follow.
  void finish();

  /// What `begin` writes for this file, and its data with padding.
  static int64_t entry_bytes(std::string_view path, int64_t size_bytes);

 private:
  std::function<void(std::string_view)> write_;
  int64_t remaining_ = 0;
  int64_t padding_ = 0;
};

}  // namespace dsctl::registry
