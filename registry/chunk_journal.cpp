#include "registry/chunk_journal.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>

#include "registry/crc32c.h"
#include "registry/error.h"

namespace dsctl::registry {
namespace {

namespace fs = std::filesystem;

// A record: u32 length of the payload, u8 type, payload, u32 CRC-32C of all before. Little-endian.
constexpr size_t kFrameBytes = 9;
constexpr size_t kMaxPayloadBytes = 1 << 20;
constexpr std::string_view kMagic = "dsctl-journal-1\n";
constexpr int64_t kMaxFileBytes = int64_t{1} << 50;
constexpr size_t kMaxValidatorBytes = 512;

enum class RecordType : uint8_t {
  kHeader = 1,
  kValidator = 2,
  kArrived = 3,
  kUnverified = 4,
  kMissing = 5
};

void put(std::string& out, uint64_t value, int n_bytes) {
  for (int i = 0; i < n_bytes; ++i)
    out += static_cast<char>(value >> (8 * i) & 255);
}

std::string record(RecordType type, std::string_view payload) {
  std::string out;
  out.reserve(payload.size() + kFrameBytes);
  put(out, payload.size(), 4);
  put(out, static_cast<uint64_t>(type), 1);
  out += payload;
  put(out, crc32c(0, std::as_bytes(std::span(out))), 4);
  return out;
}

/// Reads numbers off the front of a record. Reading past the end gives zeros and says so.
struct Reader {
  std::string_view rest;
  bool failed = false;

  uint64_t number(size_t n_bytes) {
    if (rest.size() < n_bytes) {
      failed = true;
      return 0;
    }
    uint64_t value = 0;
    for (size_t i = 0; i < n_bytes; ++i) {
      value |= uint64_t{static_cast<unsigned char>(rest[i])} << (8 * i);
    }
    rest.remove_prefix(n_bytes);
    return value;
  }
  std::string_view text(size_t n_bytes) {
    if (rest.size() < n_bytes) {
      failed = true;
      return {};
    }
    const std::string_view taken = rest.substr(0, n_bytes);
    rest.remove_prefix(n_bytes);
    return taken;
  }
};

bool is_git_sha1(std::string_view text) {
  return text.empty() || (text.size() == 40 &&
                          text.find_first_not_of("0123456789abcdef") == std::string_view::npos);
}

std::optional<JournalHeader> parse_header(std::string_view payload) {
  Reader reader{payload};
  if (reader.text(kMagic.size()) != kMagic) return std::nullopt;
  JournalHeader header;
  header.size_bytes = static_cast<int64_t>(reader.number(8));
  if (reader.number(1) == 1) {
    Digest digest;
    const std::string_view bytes = reader.text(digest.bytes.size());
    std::copy(bytes.begin(), bytes.end(), digest.bytes.begin());
    header.sha256 = digest;
  }
  header.git_sha1 = reader.rest;
  if (reader.failed || header.size_bytes < 0 || header.size_bytes > kMaxFileBytes ||
      !is_git_sha1(header.git_sha1)) {
    return std::nullopt;
  }
  return header;
}

/// The blocks a record names, checked; nothing when it is broken.
std::optional<std::span<Block>> named_blocks(Reader& reader, JournalContent& content) {
  const uint64_t first = reader.number(8);
  const uint64_t n_blocks = reader.number(8);
  const uint64_t all = content.blocks.size();
  if (reader.failed || first > all || n_blocks > all - first) return std::nullopt;
  return std::span(content.blocks).subspan(first, n_blocks);
}

/// False when the record makes no sense.
bool apply(RecordType type, std::string_view payload, JournalContent& content) {
  Reader reader{payload};
  if (type == RecordType::kValidator) {
    if (payload.size() > kMaxValidatorBytes || content.validators.size() > 255) return false;
    content.validators.emplace_back(payload);
    return true;
  }
  const auto blocks = named_blocks(reader, content);
  if (!blocks) return false;
  if (type == RecordType::kArrived) {
    const auto epoch = static_cast<uint8_t>(reader.number(1));
    if (reader.failed || reader.rest.size() != blocks->size() * 4) return false;
    for (Block& block : *blocks) {
      block = {static_cast<uint32_t>(reader.number(4)), BlockState::kArrived, epoch};
    }
    return true;
  }
  if (!reader.rest.empty()) return false;
  if (type != RecordType::kUnverified && type != RecordType::kMissing) return false;
  const bool missing = type == RecordType::kMissing;
  for (Block& block : *blocks) {
    block = {0, missing ? BlockState::kMissing : BlockState::kUnverified, 0};
  }
  return true;
}

struct Record {
  RecordType type = RecordType::kHeader;
  std::string_view payload;
};

std::optional<Record> take_record(std::string_view& bytes) {
  Reader reader{bytes};
  const uint64_t n_payload = reader.number(4);
  const auto type = static_cast<RecordType>(reader.number(1));
  if (reader.failed || n_payload > kMaxPayloadBytes) return std::nullopt;
  const std::string_view payload = reader.text(n_payload);
  const std::string_view covered = bytes.substr(0, 5 + payload.size());
  const auto crc = static_cast<uint32_t>(reader.number(4));
  if (reader.failed || crc != crc32c(0, std::as_bytes(std::span(covered)))) return std::nullopt;
  bytes = reader.rest;
  return Record{type, payload};
}

std::string blocks_payload(size_t first_block, size_t n_blocks) {
  std::string payload;
  put(payload, first_block, 8);
  put(payload, n_blocks, 8);
  return payload;
}

bool is_still_at(int fd, const fs::path& path) {
  struct stat open {};
  struct stat named {};
  return ::fstat(fd, &open) == 0 && ::stat(path.c_str(), &named) == 0 &&
         open.st_ino == named.st_ino && open.st_dev == named.st_dev;
}

}  // namespace

int64_t block_bytes_for(int64_t size_bytes) {
  constexpr int64_t kSmallest = 4 << 10;
  constexpr int64_t kUsualLargest = 1 << 20;
  constexpr int64_t kMostBlocks = int64_t{4} << 20;
  const auto ceil_power = [](int64_t n) {
    return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(n, 1))));
  };
  const int64_t usual = std::clamp(ceil_power(size_bytes / 65'536), kSmallest, kUsualLargest);
  return std::max(usual, ceil_power(size_bytes / kMostBlocks));
}

size_t block_count_for(int64_t size_bytes) {
  const int64_t block_bytes = block_bytes_for(size_bytes);
  return static_cast<size_t>((size_bytes + block_bytes - 1) / block_bytes);
}

std::optional<JournalContent> parse_journal(std::string_view bytes) {
  const size_t n_all = bytes.size();
  const auto first = take_record(bytes);
  if (!first || first->type != RecordType::kHeader) return std::nullopt;
  const auto header = parse_header(first->payload);
  if (!header) return std::nullopt;
  JournalContent content;
  content.header = *header;
  content.blocks.resize(block_count_for(header->size_bytes));
  content.valid_bytes = n_all - bytes.size();
  while (const auto next = take_record(bytes)) {
    if (!apply(next->type, next->payload, content)) break;
    content.valid_bytes = n_all - bytes.size();
  }
  return content;
}

std::string journal_header_record(const JournalHeader& header) {
  std::string payload(kMagic);
  put(payload, static_cast<uint64_t>(header.size_bytes), 8);
  put(payload, header.sha256 ? 1 : 0, 1);
  if (header.sha256) {
    for (const uint8_t byte : header.sha256->bytes)
      payload += static_cast<char>(byte);
  }
  payload += header.git_sha1;
  return record(RecordType::kHeader, payload);
}

std::string journal_validator_record(std::string_view validator) {
  return record(RecordType::kValidator, validator.substr(0, kMaxValidatorBytes));
}

std::string journal_arrived_record(size_t first_block, std::span<const uint32_t> crcs,
                                   uint8_t epoch) {
  constexpr size_t kMostInOne = 1 << 16;  // well below kMaxPayloadBytes
  std::string records;
  while (!crcs.empty()) {
    const size_t n = std::min(crcs.size(), kMostInOne);
    std::string payload = blocks_payload(first_block, n);
    put(payload, epoch, 1);
    for (const uint32_t crc : crcs.first(n))
      put(payload, crc, 4);
    records += record(RecordType::kArrived, payload);
    first_block += n;
    crcs = crcs.subspan(n);
  }
  return records;
}

std::string journal_unverified_record(size_t first_block, size_t n_blocks) {
  return record(RecordType::kUnverified, blocks_payload(first_block, n_blocks));
}

std::string journal_missing_record(size_t first_block, size_t n_blocks) {
  return record(RecordType::kMissing, blocks_payload(first_block, n_blocks));
}

std::optional<ChunkJournal> ChunkJournal::try_open(const fs::path& path) {
  while (true) {
    FileDescriptor file = open_file(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_APPEND);
    if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno == EWOULDBLOCK) return std::nullopt;
      if (errno == EINTR) continue;
      throw_errno(path, "can't lock");
    }
    // The last holder may have removed it between our open and our lock.
    if (is_still_at(file.get(), path)) return ChunkJournal(std::move(file), path);
  }
}

std::optional<JournalContent> ChunkJournal::load() {
  const auto bytes = read_small_file(path_, kMaxBytes);
  if (!bytes || bytes->empty()) return std::nullopt;
  auto content = parse_journal(*bytes);
  if (content && content->valid_bytes < bytes->size() &&
      ::ftruncate(file_.get(), static_cast<off_t>(content->valid_bytes)) != 0) {
    throw_errno(path_, "can't cut");
  }
  return content;
}

void ChunkJournal::restart(const JournalHeader& header) {
  if (::ftruncate(file_.get(), 0) != 0) throw_errno(path_, "can't empty");
  append(journal_header_record(header));
}

void ChunkJournal::append(std::string_view records) {
  write_all(file_.get(), records, path_);
}

void ChunkJournal::remove() {
  if (::unlink(path_.c_str()) != 0 && errno != ENOENT) throw_errno(path_, "can't remove");
}

}  // namespace dsctl::registry
