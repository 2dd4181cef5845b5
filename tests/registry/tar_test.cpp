#include "registry/tar.h"

#include <algorithm>
#include <cstring>

#include "registry/error.h"
#include "tests/support/catch.h"

namespace dsctl::registry {
namespace {

using Catch::Contains;

/// Gives `bytes` in pieces of `step`.
TarInput input_of(const std::string& bytes, size_t step = 7) {
  TarInput input;
  input.read = [&bytes, step, at = size_t{0}](std::span<std::byte> out) mutable {
    const size_t n = std::min({step, out.size(), bytes.size() - at});
    std::memcpy(out.data(), bytes.data() + at, n);
    at += n;
    return n;
  };
  return input;
}

std::string archive_of(const std::vector<std::pair<std::string, std::string>>& files) {
  std::string bytes;
  TarWriter writer([&bytes](std::string_view data) { bytes += data; });
  int64_t expected = 1024;
  for (const auto& [path, content] : files) {
    writer.begin(path, static_cast<int64_t>(content.size()), 1'700'000'000);
    writer.write(content);
    expected += TarWriter::entry_bytes(path, static_cast<int64_t>(content.size()));
  }
  writer.finish();
  CHECK(static_cast<int64_t>(bytes.size()) == expected);
  return bytes;
}

std::string content_of(TarReader& reader) {
  std::string content;
  std::byte buffer[100];
  while (const size_t n = reader.read(buffer))
    content.append(reinterpret_cast<const char*>(buffer), n);
  return content;
}

/// A header with the right checksum; `change` breaks what it wants before it is summed.
std::string header(const std::string& name, char type, const std::string& size_field,
                   const std::string& magic = std::string("ustar\00000", 8)) {
  std::string block(512, '\0');
  const auto put = [&block](size_t at, const std::string& text) {
    block.replace(at, text.size(), text);
  };
  put(0, name);
  put(100, "0000644");
  put(124, size_field);
  put(136, "14524561400");
  block[156] = type;
  put(257, magic);
  put(148, "        ");
  int sum = 0;
  for (const char c : block)
    sum += static_cast<unsigned char>(c);
  char text[8];
  std::snprintf(text, sizeof(text), "%06o", static_cast<unsigned>(sum));
  put(148, std::string(text, 7));
  return block;
}

const std::string kEnd(1024, '\0');

TEST_CASE("TarReader reads what TarWriter wrote, however the bytes come") {
  const std::string long_path = "manifests/" + std::string(300, 'h') + "/library/" +
                                std::string(80, 'm') + "/" + std::string(80, 't');
  const std::string prefixed = "manifests/" + std::string(80, 'h') + "/library/m/latest";
  const std::vector<std::pair<std::string, std::string>> files = {
      {"blobs/a", "content"},
      {"empty", ""},
      {long_path, std::string(512, 'x')},
      {prefixed, "y"},
      {"last", std::string(1500, 'z')}};
  const std::string bytes = archive_of(files);
  for (const size_t step : {size_t{1}, size_t{511}, size_t{1'000'000}}) {
    TarReader reader(input_of(bytes, step));
    for (const auto& [path, content] : files) {
      const auto entry = reader.next();
      REQUIRE(entry);
      CHECK(entry->path == path);
      CHECK(entry->type == TarEntryType::kFile);
      CHECK(entry->size_bytes == static_cast<int64_t>(content.size()));
      CHECK(content_of(reader) == content);
    }
    CHECK_FALSE(reader.next());
    CHECK_FALSE(reader.next());
  }
}

TEST_CASE("TarReader goes past data that nobody reads") {
  const std::string bytes = archive_of({{"a", std::string(3000, 'a')}, {"b", "b"}});
  TarReader reader(input_of(bytes));
  reader.next();
  std::byte some[10];
  reader.read(some);
  const auto entry = reader.next();
  REQUIRE(entry);
  CHECK(entry->path == "b");
  CHECK(content_of(reader) == "b");
}

TEST_CASE("A file of 8 GiB has its size in a pax record") {
  constexpr int64_t kSize = (int64_t{8} << 30) + 5;
  std::string head;
  TarWriter writer([&head](std::string_view data) { head += data; });
  writer.begin("blobs/big", kSize, 0);
  CHECK(TarWriter::entry_bytes("blobs/big", kSize) ==
        static_cast<int64_t>(head.size()) + kSize + 507);
  TarReader reader(input_of(head));
  const auto entry = reader.next();
  REQUIRE(entry);
  CHECK(entry->path == "blobs/big");
  CHECK(entry->size_bytes == kSize);
  CHECK_THROWS_WITH(reader.next(), Contains("cut short: 8589934597 more bytes expected"));
}

TEST_CASE("TarReader reads GNU's long names and binary sizes") {
  const std::string path(150, 'p');
  std::string bytes = header("././@LongLink", 'L', "00000000227", "ustar  ");  // 151 with its NUL
  bytes += path + std::string(512 - 150, '\0');
  bytes += header("cut", '0', std::string("\x80\0\0\0\0\0\0\0\0\0\0\3", 12), "ustar  ");
  bytes += "abc" + std::string(509, '\0') + kEnd;
  TarReader reader(input_of(bytes));
  const auto entry = reader.next();
  REQUIRE(entry);
  CHECK(entry->path == path);
  CHECK(content_of(reader) == "abc");
  CHECK_FALSE(reader.next());
}

TEST_CASE("TarReader tells directories, links and special files apart") {
  for (const auto& [type, expected] :
       std::vector<std::pair<char, TarEntryType>>{{'5', TarEntryType::kDirectory},
                                                  {'1', TarEntryType::kLink},
                                                  {'2', TarEntryType::kLink},
                                                  {'3', TarEntryType::kOther},
                                                  {'6', TarEntryType::kOther},
                                                  {'S', TarEntryType::kOther},
                                                  {'7', TarEntryType::kFile}}) {
    const std::string bytes = header("name", type, "00000000000") + kEnd;
    TarReader reader(input_of(bytes));
    CHECK(reader.next()->type == expected);
  }
  const std::string bytes = header("old/", '\0', "00000000000") + kEnd;
  CHECK(TarReader(input_of(bytes)).next()->type == TarEntryType::kDirectory);
}

TEST_CASE("TarReader refuses what is damaged, cut short or no tar") {
  const auto error_of = [](const std::string& bytes) -> std::string {
    TarReader reader(input_of(bytes, 1000));
    try {
      while (reader.next()) {
      }
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  const std::string good = archive_of({{"a", "content"}});
  CHECK(error_of(good).empty());
  std::string flipped = good;
  flipped[3] ^= 1;
  CHECK_THAT(error_of(flipped), Contains("byte 512: is no tar header (wrong checksum)"));
  CHECK_THAT(error_of(std::string(2000, 'q')), Contains("no tar"));
  CHECK_THAT(error_of(""), Contains("no end mark"));
  for (size_t size = 1; size < 1025; ++size)  // up to the first block of the end mark
    CHECK_THAT(error_of(good.substr(0, size)), Contains("cut short"));
  CHECK_THAT(error_of(header("a", '0', "0000000000x") + kEnd), Contains("no valid size"));
  CHECK_THAT(error_of(header("a", '0', std::string("\xff\0\0\0\0\0\0\0\0\0\0\1", 12)) + kEnd),
             Contains("no valid size"));
  CHECK_THAT(
      error_of(header("a", '0', std::string("\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", 12)) +
               kEnd),
      Contains("no valid size"));
  CHECK_THAT(error_of(header("a", 'L', "77777777777") + kEnd), Contains("a path of 8589934591"));
  CHECK_THAT(error_of(header("a", 'x', "77777777777") + kEnd), Contains("a pax header of"));
  std::string meta;
  for (int i = 0; i < 40; ++i)
    meta += header("a", 'g', "00000000000");
  CHECK_THAT(error_of(meta + kEnd), Contains("headers describe one entry"));
  CHECK_THAT(error_of(header("a", 'g', "00000000000") + kEnd), Contains("ends where an entry"));
}

TEST_CASE("TarReader refuses broken pax records") {
  const auto error_of = [](std::string records) -> std::string {
    char size[13];
    std::snprintf(size, sizeof(size), "%011o", static_cast<unsigned>(records.size()));
    records.resize((records.size() + 511) / 512 * 512);
    const std::string bytes =
        header("x", 'x', size) + records + header("a", '0', "00000000000") + kEnd;
    TarReader reader(input_of(bytes));
    try {
      reader.next();
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  CHECK(error_of("10 path=b\n").empty());
  for (const char* records : {"path=b\n", "11 path=b\n", "8 path=b\n", "99 path=b\n", "0 x\n",
                              "-5 path=b\n", "4 x\n", "18446744073709551615 path=b\n"}) {
    INFO(records);
    CHECK_THAT(error_of(records), Contains("pax record"));
  }
  CHECK_THAT(error_of("11 size=-1\n"), Contains("no valid size"));
  CHECK_THAT(error_of("29 size=99999999999999999999\n"), Contains("no valid size"));
  CHECK_THAT(error_of("22 GNU.sparse.major=1\n"), Contains("sparse"));
}

}  // namespace
}  // namespace dsctl::registry
