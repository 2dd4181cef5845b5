// The journal, byte by byte: what a crash or a foreign hand may leave in it.
#include "registry/chunk_journal.h"

#include <fstream>
#include <random>
#include <string>

#include "registry/crc32c.h"
#include "registry/error.h"
#include "registry/partial_file.h"
#include "registry/rate_limit.h"
#include "registry/response_check.h"
#include "tests/support/catch.h"
#include "tests/support/paths.h"

namespace dsctl::registry {
namespace {

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

JournalHeader header_of(int64_t size_bytes) {
  return {.size_bytes = size_bytes, .sha256 = Digest::of("x"), .git_sha1 = {}};
}

TEST_CASE("crc32c gives the published values, however the data is cut") {
  CHECK(crc32c(0, bytes_of("123456789")) == 0xE3069283);            // the CRC catalogue's check
  CHECK(crc32c(0, bytes_of(std::string(32, '\0'))) == 0x8A9136AA);  // RFC 3720 B.4
  CHECK(crc32c(0, bytes_of(std::string(32, '\xff'))) == 0x62A8AB43);
  CHECK(crc32c(0, {}) == 0);
  const std::string text = "The quick brown fox jumps over the lazy dog, twice";
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    CHECK(crc32c(crc32c(0, bytes_of(text.substr(0, cut))), bytes_of(text.substr(cut))) ==
          crc32c(0, bytes_of(text)));
  }
}

TEST_CASE("Blocks are small where the file is, and never too many") {
  CHECK(block_bytes_for(0) == 4096);
  CHECK(block_bytes_for(100) == 4096);
  CHECK(block_bytes_for(int64_t{1} << 30) == 16 << 10);
  CHECK(block_bytes_for(int64_t{48} << 30) == 1 << 20);
  CHECK(block_bytes_for(int64_t{404} << 30) == 1 << 20);
  CHECK(block_count_for(0) == 0);
  CHECK(block_count_for(1) == 1);
  CHECK(block_count_for(4097) == 2);
  for (int bits = 0; bits <= 50; ++bits) {
    CHECK(block_count_for(int64_t{1} << bits) <= size_t{4} << 20);
  }
}

TEST_CASE("A journal says what was put into it") {
  const std::vector<uint32_t> crcs{1, 2, 3};
  const std::string bytes = journal_header_record(header_of(100'000)) +
                            journal_validator_record("\"etag\"") +
                            journal_arrived_record(4, crcs, 0) + journal_unverified_record(0, 2) +
                            journal_missing_record(5, 1);
  const auto content = parse_journal(bytes);
  REQUIRE(content);
  CHECK(content->header == header_of(100'000));
  CHECK(content->validators == std::vector<std::string>{"\"etag\""});
  CHECK(content->valid_bytes == bytes.size());
  REQUIRE(content->blocks.size() == 25);
  CHECK(content->blocks[0].state == BlockState::kUnverified);
  CHECK(content->blocks[2].state == BlockState::kMissing);
  CHECK(content->blocks[4].state == BlockState::kArrived);
  CHECK(content->blocks[4].crc == 1);
  CHECK(content->blocks[5].state == BlockState::kMissing);
  CHECK(content->blocks[6].crc == 3);
}

TEST_CASE("A journal cut at any byte gives what was whole, and a changed bit ends it") {
  const std::vector<uint32_t> crcs(10, 7);
  std::string bytes = journal_header_record(header_of(1'000'000));
  const size_t header_bytes = bytes.size();
  std::vector<size_t> ends{header_bytes};
  for (size_t i = 0; i < 5; ++i) {
    bytes += journal_arrived_record(i * 10, crcs, 0);
    ends.push_back(bytes.size());
  }
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    const auto content = parse_journal(std::string_view(bytes).substr(0, cut));
    REQUIRE(content.has_value() == (cut >= header_bytes));
    if (content) CHECK(content->valid_bytes == *--std::upper_bound(ends.begin(), ends.end(), cut));
  }
  for (size_t i = 0; i < bytes.size(); ++i) {
    std::string broken = bytes;
    broken[i] = static_cast<char>(broken[i] ^ 16);
    const auto content = parse_journal(broken);
    REQUIRE(content.has_value() == (i >= header_bytes));
    if (content) CHECK(content->valid_bytes == *--std::upper_bound(ends.begin(), ends.end(), i));
  }
}

TEST_CASE("A journal that claims more than there can be is not believed") {
  const std::vector<uint32_t> crcs{1};
  for (const std::string& record :
       {journal_arrived_record(25, crcs, 0), journal_arrived_record(SIZE_MAX, crcs, 0),
        journal_unverified_record(1, SIZE_MAX), journal_missing_record(24, 2)}) {
    const std::string bytes = journal_header_record(header_of(100'000)) + record;
    CHECK(parse_journal(bytes)->valid_bytes == bytes.size() - record.size());
  }
  CHECK(!parse_journal(journal_header_record(header_of(-1))));
  CHECK(!parse_journal(journal_header_record(header_of(int64_t{1} << 60))));
  CHECK(!parse_journal(journal_missing_record(0, 0)));
}

TEST_CASE("A journal belongs to one at a time, and to whoever finds it by name") {
  const tests::TempDir dir;
  const auto path = dir.path() / "j";
  auto first = ChunkJournal::try_open(path);
  REQUIRE(first);
  CHECK(!ChunkJournal::try_open(path));
  first->restart(header_of(10));
  first->remove();
  auto second = ChunkJournal::try_open(path);  // a new file: the old one's lock says nothing
  REQUIRE(second);
  CHECK(!second->load());
  first.reset();
  second.reset();
  CHECK(ChunkJournal::try_open(path));
}

TEST_CASE("PartialFile hands out what is missing and keeps what arrived over a restart") {
  const tests::TempDir dir;
  const auto path = dir.path() / "p";
  const std::string content(20'000, 'q');
  const auto data = std::as_bytes(std::span(content));
  {
    auto partial = PartialFile::try_open(path);
    REQUIRE(partial);
    CHECK(!PartialFile::try_open(path));
    partial->take_up(header_of(20'000));
    auto first = partial->assign(8192);
    auto second = partial->assign(8192);
    auto third = partial->assign(1 << 20);
    REQUIRE((first && second && third));
    CHECK(third->end == 20'000);
    CHECK(!partial->assign(1 << 20));
    partial->write(*second, data.subspan(0, 5000), 0);  // one block and a piece
    CHECK(partial->arrived_bytes() == 4096);
    CHECK(partial->front_bytes() == 0);
    partial->write(*first, data.subspan(0, 8192), 0);
    CHECK(partial->front_bytes() == 3 * 4096);
    partial->write(*third, data.subspan(0, 3616), 0);
    CHECK(partial->arrived_bytes() == 20'000 - 4096);
    partial->unassign(0, 20'000);
    CHECK(partial->unassigned_bytes() == 4096);
    partial->flush_journal();
  }
  auto partial = PartialFile::try_open(path);
  partial->take_up(header_of(20'000));
  CHECK(partial->arrived_bytes() == 20'000 - 4096);
  const auto rest = partial->assign(1 << 20);
  REQUIRE(rest);
  CHECK(rest->begin == 3 * 4096);
  CHECK(rest->end == 4 * 4096);
  partial->distrust(0, 1);
  CHECK(partial->front_bytes() == 0);
  partial->take_up({.size_bytes = 20'000, .sha256 = Digest::of("other"), .git_sha1 = {}});
  CHECK(partial->arrived_bytes() == 0);
}

TEST_CASE("RateLimit gives no more than its rate, and no burst after a pause") {
  using namespace std::chrono_literals;
  RateLimit rate(1000);
  const auto begin = RateLimit::Clock::now() + 1h;  // long idle: the bucket is full, not more
  CHECK(rate.allows(begin));
  rate.take(100);
  CHECK(!rate.allows(begin));
  rate.take(500);  // on credit
  CHECK(rate.wait(begin) >= 500ms);
  CHECK(!rate.allows(begin + 400ms));
  CHECK(rate.allows(begin + 501ms));
  RateLimit none(0);
  none.take(1 << 30);
  CHECK(none.allows(begin));
}

ResponseHead head_of(int status, const std::vector<std::string>& lines) {
  ResponseHead head;
  head.add_line("HTTP/1.1 " + std::to_string(status) + " x");
  for (const std::string& line : lines)
    head.add_line(line);
  return head;
}

TEST_CASE("Answers are judged by what was asked") {
  const auto judge = [](int status, const std::vector<std::string>& lines) {
    return judge_response(head_of(status, lines), 100, 200, 784111770);
  };
  const auto good = judge(206, {"Content-Range: bytes 100-199/500", "ETag: W/\"a\""});
  CHECK(good.kind == Verdict::kRange);
  CHECK(good.end == 200);
  CHECK(good.total_bytes == 500);
  CHECK(good.validator == "W/\"a\"");
  CHECK(judge(206, {"Content-Range: bytes 100-150/500"}).end == 151);
  CHECK(judge(206, {"Content-Range: bytes 100-200/500"}).kind == Verdict::kBroken);
  CHECK(judge(206, {"Content-Range: bytes 99-199/500"}).kind == Verdict::kBroken);
  CHECK(judge(206, {}).kind == Verdict::kBroken);
  CHECK(judge(200, {"Content-Length: 500", "Last-Modified: x"}).total_bytes == 500);
  CHECK(judge(200, {"Content-Length: 500", "Last-Modified: x"}).validator == "x");
  CHECK(judge(200, {"Content-Length: -5"}).kind == Verdict::kBroken);
  CHECK(judge(200, {"Content-Encoding: gzip"}).kind == Verdict::kBroken);
  CHECK(judge(302, {"Location: /x"}).location == "/x");
  CHECK(judge(302, {}).kind == Verdict::kBroken);
  CHECK(judge(429, {"Retry-After: Sun, 06 Nov 1994 08:49:37 GMT"}).retry_after ==
        std::chrono::milliseconds(7000));
  CHECK(judge(416, {"Content-Range: bytes */77"}).total_bytes == 77);
  CHECK(judge(403, {}).kind == Verdict::kExpired);
  CHECK(judge(451, {}).kind == Verdict::kBroken);
  CHECK(judge(0, {}).kind == Verdict::kBroken);
}

}  // namespace
}  // namespace dsctl::registry
