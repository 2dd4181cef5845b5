#include "registry/tar.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <charconv>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "registry/error.h"

namespace dsctl::registry {
namespace {

constexpr int64_t kBlock = 512;
constexpr int64_t kMaxUstarSize = 077777777777;  // eleven octal digits
constexpr int64_t kMaxPathBytes = 4096;
constexpr int64_t kMaxPaxBytes = 1 << 20;
constexpr int kMaxMetaHeaders = 16;  // headers in a row that describe the next one

/// A header's fields by offset and length (POSIX ustar).
struct Field {
  size_t offset = 0;
  size_t size = 0;
};
constexpr Field kName{0, 100};
constexpr Field kMode{100, 8};
constexpr Field kUid{108, 8};
constexpr Field kGid{116, 8};
constexpr Field kSize{124, 12};
constexpr Field kMtime{136, 12};
constexpr Field kChecksum{148, 8};
constexpr size_t kType = 156;
constexpr Field kMagic{257, 8};
constexpr Field kPrefix{345, 155};

using Block = std::array<char, kBlock>;

std::string_view view(const Block& block, Field field) {
  return std::string_view(block.data(), block.size()).substr(field.offset, field.size);
}

/// A field's text up to its NUL.
std::string_view text_of(const Block& block, Field field) {
  const std::string_view all = view(block, field);
  return all.substr(0, all.find('\0'));
}

/// An octal or base-256 number, or nothing when it is neither, negative or too large.
std::optional<int64_t> number_of(std::string_view field) {
  const auto first = static_cast<unsigned char>(field[0]);
  if (first & 0x80) {
    if (first != 0x80) return std::nullopt;  // negative, or beyond 88 bits
    uint64_t value = 0;
    for (const char c : field.substr(1)) {
      if (value >> 55) return std::nullopt;
      value = value << 8 | static_cast<unsigned char>(c);
    }
    return static_cast<int64_t>(value);
  }
  const size_t begin = std::min(field.find_first_not_of(' '), field.size());
  const size_t end = std::min(field.find_first_of(std::string_view(" \0", 2), begin), field.size());
  if (begin == end) return 0;  // old programs leave a field empty
  uint64_t value = 0;
  const auto parsed = std::from_chars(field.data() + begin, field.data() + end, value, 8);
  if (parsed.ec != std::errc() || parsed.ptr != field.data() + end || value >> 62) {
    return std::nullopt;
  }
  return static_cast<int64_t>(value);
}

/// Sums of the header's bytes, the checksum itself taken as blanks: POSIX's, and the signed one
/// that some old programs wrote.
std::pair<int64_t, int64_t> checksums(const Block& block) {
  int64_t plain = 0;
  int64_t with_sign = 0;
  for (size_t i = 0; i < block.size(); ++i) {
    const bool own = i >= kChecksum.offset && i < kChecksum.offset + kChecksum.size;
    plain += own ? ' ' : static_cast<unsigned char>(block[i]);
    with_sign += own ? ' ' : static_cast<signed char>(block[i]);
  }
  return {plain, with_sign};
}

bool is_zero(const Block& block) {
  return std::all_of(block.begin(), block.end(), [](char c) { return c == 0; });
}

int64_t padding_of(int64_t size_bytes) {
  return (kBlock - size_bytes % kBlock) % kBlock;
}

std::string path_of(const Block& block) {
  std::string path(text_of(block, kName));
  // GNU's own magic ends in blanks; its prefix field holds other things.
  const bool posix = view(block, kMagic).starts_with(std::string_view("ustar\0", 6));
  const std::string_view prefix = text_of(block, kPrefix);
  if (posix && !prefix.empty()) path = std::string(prefix) + "/" + path;
  return path;
}

TarEntryType type_of(char flag, const std::string& path) {
  switch (flag) {
    case '0':
    case '\0':
    case '7':
      return path.ends_with('/') ? TarEntryType::kDirectory : TarEntryType::kFile;
    case '5':
      return TarEntryType::kDirectory;
    case '1':
    case '2':
      return TarEntryType::kLink;
    default:
      return TarEntryType::kOther;
  }
}

void put_octal(Block& block, Field field, int64_t value) {
  for (size_t i = field.size - 1; i-- > 0; value >>= 3)
    block[field.offset + i] = static_cast<char>('0' + (value & 7));
}

void put_text(Block& block, Field field, std::string_view text) {
  assert(text.size() <= field.size);
  std::memcpy(block.data() + field.offset, text.data(), text.size());
}

/// Where to cut `path` so that its parts fit prefix and name; nothing when there is no such place;
/// 0 when it fits the name alone.
std::optional<size_t> ustar_cut(std::string_view path) {
  if (path.size() <= kName.size) return 0;
  for (size_t cut = path.find('/'); cut != std::string_view::npos; cut = path.find('/', cut + 1)) {
    if (cut > kPrefix.size) break;
    if (cut > 0 && path.size() - cut - 1 <= kName.size && cut + 1 < path.size()) return cut;
  }
  return std::nullopt;
}

Block make_header(std::string_view path, char type, int64_t size_bytes, int64_t mtime_s) {
  Block block{};
  const size_t cut = ustar_cut(path).value_or(0);
  if (cut > 0) put_text(block, kPrefix, path.substr(0, cut));
  put_text(block, kName, path.substr(cut > 0 ? cut + 1 : 0).substr(0, kName.size));
  put_octal(block, kMode, 0644);
  put_octal(block, kUid, 0);
  put_octal(block, kGid, 0);
  put_octal(block, kSize, size_bytes);
  put_octal(block, kMtime, std::clamp<int64_t>(mtime_s, 0, kMaxUstarSize));
  block[kType] = type;
  put_text(block, kMagic, std::string_view("ustar\00000", 8));
  put_octal(block, {kChecksum.offset, kChecksum.size - 1}, checksums(block).first);
  block[kChecksum.offset + 7] = ' ';
  return block;
}

/// "<length> key=value\n", where the length counts itself.
std::string pax_record(std::string_view key, std::string_view value) {
  const size_t rest = 1 + key.size() + 1 + value.size() + 1;
  size_t total = rest + 1;
  while (std::to_string(total).size() + rest != total)
    total = std::to_string(total).size() + rest;
  return std::to_string(total) + " " + std::string(key) + "=" + std::string(value) + "\n";
}

/// The records that a header alone can't say; mostly empty.
std::string pax_records(std::string_view path, int64_t size_bytes) {
  std::string records;
  if (!ustar_cut(path)) records += pax_record("path", path);
  if (size_bytes > kMaxUstarSize) records += pax_record("size", std::to_string(size_bytes));
  return records;
}

}  // namespace

/// What pax and GNU headers say of the entry that follows them.
struct TarReader::Overrides {
  std::optional<std::string> path;
  std::optional<int64_t> size_bytes;
};

TarReader::TarReader(TarInput input) : input_(std::move(input)) {}

void TarReader::fail(const std::string& what) const {
  throw Error("archive: byte " + std::to_string(position_) + ": " + what);
}

/// False at the very end; an end inside the block is an error.
bool TarReader::read_block(std::span<std::byte> block) {
  size_t have = 0;
  while (have < block.size()) {
    const size_t n = input_.read(block.subspan(have));
    if (n == 0 && have == 0) return false;
    if (n == 0) fail("the archive is cut short inside a header");
    have += n;
    position_ += static_cast<int64_t>(n);
  }
  return true;
}

void TarReader::skip(int64_t n) {
  if (n > 0 && input_.skip && input_.skip(n)) {
    position_ += n;
    return;
  }
  std::vector<std::byte> buffer(static_cast<size_t>(std::min<int64_t>(n, 1 << 20)));
  while (n > 0) {
    const auto wanted = static_cast<size_t>(std::min<int64_t>(n, 1 << 20));
    const size_t got = input_.read(std::span(buffer).first(wanted));
    if (got == 0) fail("the archive is cut short: " + std::to_string(n) + " more bytes expected");
    n -= static_cast<int64_t>(got);
    position_ += static_cast<int64_t>(got);
  }
}

std::string TarReader::read_text(int64_t size_bytes, int64_t max_bytes, std::string_view what) {
  if (size_bytes > max_bytes) {
    fail(std::string(what) + " of " + std::to_string(size_bytes) + " bytes, at most " +
         std::to_string(max_bytes) + " are allowed");
  }
  remaining_ = size_bytes;
  padding_ = padding_of(size_bytes);
  std::string text(static_cast<size_t>(size_bytes), '\0');
  size_t have = 0;
  while (have < text.size())
    have += read(std::as_writable_bytes(std::span(text)).subspan(have));
  skip(std::exchange(padding_, 0));
  return text;
}

void TarReader::read_pax(const std::string& records, Overrides& overrides) const {
  std::string_view rest = records;
  while (!rest.empty()) {
    size_t length = 0;
    const auto parsed = std::from_chars(rest.data(), rest.data() + rest.size(), length);
    const auto digits = static_cast<size_t>(parsed.ptr - rest.data());
    const bool sound = parsed.ec == std::errc() && length <= rest.size() && length > digits + 1 &&
                       rest[digits] == ' ' && rest[length - 1] == '\n';
    if (!sound) fail("a pax record is damaged");
    const std::string_view record = rest.substr(digits + 1, length - digits - 2);
    rest.remove_prefix(length);
    const size_t equals = record.find('=');
    if (equals == std::string_view::npos) fail("a pax record has no '='");
    const std::string_view key = record.substr(0, equals);
    const std::string_view value = record.substr(equals + 1);
    if (key.starts_with("GNU.sparse.")) {
      fail("a sparse file, which is not read; make the archive without --sparse");
    }
    if (key == "path") overrides.path = std::string(value);
    if (key != "size") continue;
    int64_t size_bytes = 0;
    const auto number = std::from_chars(value.data(), value.data() + value.size(), size_bytes);
    if (number.ec != std::errc() || number.ptr != value.data() + value.size() || size_bytes < 0) {
      fail("a pax record gives no valid size");
    }
    overrides.size_bytes = size_bytes;
  }
}

std::optional<TarEntry> TarReader::next() {
  skip(std::exchange(remaining_, 0));
  skip(std::exchange(padding_, 0));
  if (ended_) return std::nullopt;
  Overrides overrides;
  for (int n_meta = 0; n_meta <= kMaxMetaHeaders; ++n_meta) {
    Block block{};
    if (!read_block(std::as_writable_bytes(std::span(block)))) {
      fail("the archive is cut short: it has no end mark");
    }
    if (is_zero(block)) {
      if (n_meta > 0) fail("the archive ends where an entry was announced");
      ended_ = true;
      return std::nullopt;
    }
    const auto stored = number_of(view(block, kChecksum));
    const auto [plain, with_sign] = checksums(block);
    if (!stored || (*stored != plain && *stored != with_sign)) {
      fail("is no tar header (wrong checksum); the archive is damaged or no tar");
    }
    const auto size_bytes = number_of(view(block, kSize));
    if (!size_bytes) fail("an entry has no valid size");
    const char flag = block[kType];
    if (flag == 'x') {
      read_pax(read_text(*size_bytes, kMaxPaxBytes, "a pax header"), overrides);
    } else if (flag == 'g') {
      read_text(*size_bytes, kMaxPaxBytes,
                "a pax header");  // comments of the program that wrote it
    } else if (flag == 'L') {
      const std::string name = read_text(*size_bytes, kMaxPathBytes + 1, "a path");
      overrides.path = name.substr(0, name.find('\0'));
    } else if (flag == 'K') {
      read_text(*size_bytes, kMaxPathBytes + 1, "a link's target");
    } else {
      TarEntry entry;
      entry.path = overrides.path.value_or(path_of(block));
      entry.size_bytes = overrides.size_bytes.value_or(*size_bytes);
      entry.type = type_of(flag, entry.path);
      if (entry.path.size() > kMaxPathBytes) fail("a path of over 4096 bytes");
      if (entry.size_bytes > std::numeric_limits<int64_t>::max() - position_ - kBlock) {
        fail("an entry has no valid size");
      }
      // Links and the like have no data, whatever their size says.
      if (entry.type == TarEntryType::kLink || entry.type == TarEntryType::kDirectory) {
        entry.size_bytes = 0;
      }
      remaining_ = entry.size_bytes;
      padding_ = padding_of(entry.size_bytes);
      return entry;
    }
  }
  fail("more than " + std::to_string(kMaxMetaHeaders) + " headers describe one entry");
}

size_t TarReader::read(std::span<std::byte> out) {
  if (remaining_ == 0 || out.empty()) return 0;
  const auto wanted =
      static_cast<size_t>(std::min<uint64_t>(static_cast<uint64_t>(remaining_), out.size()));
  const size_t n = input_.read(out.first(wanted));
  if (n == 0) {
    fail("the archive is cut short: " + std::to_string(remaining_) + " more bytes expected");
  }
  remaining_ -= static_cast<int64_t>(n);
  position_ += static_cast<int64_t>(n);
  return n;
}

TarWriter::TarWriter(std::function<void(std::string_view)> write) : write_(std::move(write)) {}

void TarWriter::begin(std::string_view path, int64_t size_bytes, int64_t mtime_s) {
  assert(remaining_ == 0);
  const std::string records = pax_records(path, size_bytes);
  const auto put = [this](const Block& block) { write_({block.data(), block.size()}); };
  if (!records.empty()) {
    const auto n = static_cast<int64_t>(records.size());
    put(make_header("pax/header", 'x', n, mtime_s));
    write_(records);
    write_(std::string(static_cast<size_t>(padding_of(n)), '\0'));
  }
  put(make_header(path, '0', size_bytes > kMaxUstarSize ? 0 : size_bytes, mtime_s));
  remaining_ = size_bytes;
  padding_ = padding_of(size_bytes);
}

void TarWriter::write(std::string_view data) {
  assert(static_cast<int64_t>(data.size()) <= remaining_);
  write_(data);
  remaining_ -= static_cast<int64_t>(data.size());
  if (remaining_ == 0 && padding_ > 0) {
    write_(std::string(static_cast<size_t>(std::exchange(padding_, 0)), '\0'));
  }
}

void TarWriter::finish() {
  assert(remaining_ == 0);
  write_(std::string(2 * kBlock, '\0'));
}

int64_t TarWriter::entry_bytes(std::string_view path, int64_t size_bytes) {
  const auto pax = static_cast<int64_t>(pax_records(path, size_bytes).size());
  return (pax > 0 ? kBlock + pax + padding_of(pax) : 0) + kBlock + size_bytes +
         padding_of(size_bytes);
}

}  // namespace dsctl::registry
