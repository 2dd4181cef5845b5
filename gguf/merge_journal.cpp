#include "gguf/merge_journal.h"

#include <charconv>
#include <limits>
#include <nlohmann/json.hpp>

#include "gguf/error.h"
#include "gguf/printable.h"

namespace dsctl::gguf {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kFormat = "dsctl merge journal";
constexpr int kVersion = 1;
constexpr size_t kMaxShards = 65535;      // split.count has 16 bits
constexpr size_t kMaxSegments = 1 << 20;  // as many as a file may have tensors
constexpr size_t kMaxPathBytes = 4096;    // PATH_MAX

[[noreturn]] void fail(const std::string& what) {
  throw Error("the journal of the merge is damaged: " + what);
}

const Json& field(const Json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end()) fail("line 1 has no \"" + std::string(name) + "\"");
  return *found;
}

int64_t non_negative(const Json& value, const char* name) {
  if (!value.is_number_integer() ||
      (value.is_number_unsigned() &&
       value.get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()}) ||
      value.get<int64_t>() < 0) {
    fail("\"" + std::string(name) + "\" is no size");
  }
  return value.get<int64_t>();
}

int64_t get_size(const Json& object, const char* name) {
  return non_negative(field(object, name), name);
}

/// True when [offset, offset + size) lies within [begin, end).
bool lies_within(int64_t offset, int64_t size, int64_t begin, int64_t end) {
  return offset >= begin && offset <= end && size <= end - offset;
}

Segment parse_segment(const Json& json, const MergeWork& work, const MergeWork::Shard& shard) {
  if (!json.is_array() || json.size() != 3) fail("a segment is not [from, to, size]");
  const Segment segment{non_negative(json[0], "segments"), non_negative(json[1], "segments"),
                        non_negative(json[2], "segments")};
  if (segment.size_bytes == 0) fail("a segment is empty");
  if (!lies_within(segment.in_offset_bytes, segment.size_bytes, 0, shard.size_bytes)) {
    fail("a segment leaves its shard " + printable(shard.path.string()));
  }
  if (!lies_within(segment.out_offset_bytes, segment.size_bytes, work.header_bytes,
                   work.size_bytes)) {
    fail("a segment leaves the merged file");
  }
  return segment;
}

MergeWork::Shard parse_shard_line(const Json& json, const MergeWork& work, size_t& n_segments) {
  if (!json.is_object()) fail("a shard is no object");
  MergeWork::Shard shard;
  const Json& path = field(json, "path");
  if (!path.is_string()) fail("\"path\" is no text");
  const auto& text = path.get_ref<const std::string&>();
  if (text.empty() || text.front() != '/' || text.size() > kMaxPathBytes ||
      text.find('\0') != std::string::npos) {
    fail("\"path\" is no absolute path: " + printable(text));
  }
  shard.path = text;
  shard.size_bytes = get_size(json, "size");
  const Json& modified = field(json, "modified_ns");
  if (!modified.is_number_integer()) fail("\"modified_ns\" is no time");
  shard.modified_ns = modified.get<int64_t>();
  const Json& inode = field(json, "inode");
  if (!inode.is_number_unsigned()) fail("\"inode\" is no number");
  shard.inode = inode.get<uint64_t>();
  const Json& segments = field(json, "segments");
  if (!segments.is_array()) fail("\"segments\" is no list");
  n_segments += segments.size();
  if (n_segments > kMaxSegments) fail("there are too many segments");
  int64_t sum = 0;
  for (const Json& segment : segments) {
    shard.segments.push_back(parse_segment(segment, work, shard));
    if (__builtin_add_overflow(sum, shard.segments.back().size_bytes, &sum)) {
      fail("the segments are larger than any file");
    }
  }
  return shard;
}

MergeWork parse_work(std::string_view line) {
  const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) fail("line 1 is no JSON object");
  if (field(json, "format") != kFormat) fail("line 1 is no journal of a merge");
  if (field(json, "version") != kVersion) {
    throw Error("the journal of the merge has another version than " + std::to_string(kVersion) +
                ": finish the merge with the dsctl that began it");
  }
  MergeWork work;
  work.size_bytes = get_size(json, "size");
  work.header_bytes = get_size(json, "header_bytes");
  if (work.header_bytes > work.size_bytes) fail("the header is larger than the file");
  const Json& hash = field(json, "header_hash");
  if (!hash.is_number_unsigned()) fail("\"header_hash\" is no number");
  work.header_hash = hash.get<uint64_t>();
  const Json& shards = field(json, "shards");
  if (!shards.is_array() || shards.empty() || shards.size() > kMaxShards) {
    fail("\"shards\" is no list of 1 to " + std::to_string(kMaxShards) + " shards");
  }
  size_t n_segments = 0;
  for (const Json& shard : shards)
    work.shards.push_back(parse_shard_line(shard, work, n_segments));
  return work;
}

/// "done SHARD BYTES" without its newline.
MergeState parse_state(std::string_view line, size_t line_number, const MergeJournal& journal) {
  const auto fail_line = [&](const std::string& what) {
    fail("line " + std::to_string(line_number) + " " + what + ": " + printable(line));
  };
  constexpr std::string_view kDone = "done ";
  if (!line.starts_with(kDone)) fail_line("does not say \"done\"");
  MergeState state;
  const char* const end = line.data() + line.size();
  const auto idx = std::from_chars(line.data() + kDone.size(), end, state.shard_idx);
  if (idx.ec != std::errc() || idx.ptr == end || *idx.ptr != ' ') fail_line("names no shard");
  const auto bytes = std::from_chars(idx.ptr + 1, end, state.done_bytes);
  if (bytes.ec != std::errc() || bytes.ptr != end) fail_line("names no size");
  const auto& shards = journal.work.shards;
  const bool is_boundary = state.shard_idx <= shards.size() && state.done_bytes == 0;
  const bool is_inside = state.shard_idx < shards.size() && state.done_bytes > 0 &&
                         state.done_bytes < shards[state.shard_idx].data_bytes();
  if (!is_boundary && !is_inside) fail_line("names a place that is not there");
  const MergeState& before = journal.state;
  const bool follows = state.shard_idx == before.shard_idx
                           ? state.done_bytes > before.done_bytes
                           : state.shard_idx == before.shard_idx + 1 && is_boundary;
  if (!follows) fail_line("does not follow from the line before it");
  return state;
}

}  // namespace

int64_t MergeWork::Shard::data_bytes() const {
  int64_t sum = 0;
  for (const Segment& segment : segments)
    sum += segment.size_bytes;
  return sum;
}

std::filesystem::path merge_partial_path(const std::filesystem::path& out) {
  return out.string() + ".dsctl-merge";
}

std::filesystem::path merge_journal_path(const std::filesystem::path& out) {
  return out.string() + ".dsctl-merge-journal";
}

uint64_t header_hash(std::string_view bytes) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : bytes)
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

std::string print_merge_work(const MergeWork& work) {
  Json json;
  json["format"] = kFormat;
  json["version"] = kVersion;
  json["size"] = work.size_bytes;
  json["header_bytes"] = work.header_bytes;
  json["header_hash"] = work.header_hash;
  json["shards"] = Json::array();
  for (const MergeWork::Shard& shard : work.shards) {
    Json item;
    item["path"] = shard.path.string();
    item["size"] = shard.size_bytes;
    item["modified_ns"] = shard.modified_ns;
    item["inode"] = shard.inode;
    item["segments"] = Json::array();
    for (const Segment& segment : shard.segments) {
      item["segments"].push_back(
          {segment.in_offset_bytes, segment.out_offset_bytes, segment.size_bytes});
    }
    json["shards"].push_back(std::move(item));
  }
  try {
    return json.dump() + "\n";
  } catch (const Json::exception&) {
    throw Error("a shard's path is not valid UTF-8, so that the journal can't name it: rename it");
  }
}

std::string print_merge_state(const MergeState& state) {
  return "done " + std::to_string(state.shard_idx) + " " + std::to_string(state.done_bytes) + "\n";
}

std::optional<MergeJournal> parse_merge_journal(std::string_view text) {
  size_t begin = 0;
  size_t line_number = 1;
  MergeJournal journal;
  for (size_t end = text.find('\n'); end != std::string_view::npos; end = text.find('\n', begin)) {
    const std::string_view line = text.substr(begin, end - begin);
    if (line_number == 1) {
      journal.work = parse_work(line);
    } else {
      journal.state = parse_state(line, line_number, journal);
    }
    begin = end + 1;
    ++line_number;
  }
  if (line_number == 1) return std::nullopt;
  journal.valid_bytes = begin;
  return journal;
}

}  // namespace dsctl::gguf
