#include "gguf/merge_journal.h"

#include <limits>

#include "gguf/error.h"
#include "tests/support/catch.h"
#include "tests/support/gguf_bytes.h"

namespace dsctl::gguf {
namespace {

using Catch::Contains;

MergeWork small_work() {
  MergeWork work;
  work.size_bytes = 1000;
  work.header_bytes = 100;
  work.header_hash = std::numeric_limits<uint64_t>::max();
  work.shards = {{"/models/a b-00001-of-00003.gguf", 300, -5, 17, {{64, 100, 200}, {270, 320, 30}}},
                 {"/models/\"é\"", 50, 1'700'000'000'000'000'001, 18, {}},
                 {"/c", 400, 0, 19, {{0, 400, 400}}}};
  return work;
}

std::string error_of_journal(const std::string& text) {
  return tests::error_of([&] { parse_merge_journal(text); });
}

TEST_CASE("A merge's journal reads what was printed") {
  const MergeWork work = small_work();
  const std::string text = print_merge_work(work);
  const auto journal = parse_merge_journal(text);
  REQUIRE(journal);
  CHECK(journal->work == work);
  CHECK(journal->state == MergeState{});
  CHECK(journal->valid_bytes == text.size());
  CHECK(work.shards[0].data_bytes() == 230);
}

TEST_CASE("A merge's journal says how far it got, but not by a line that was never finished") {
  std::string text = print_merge_work(small_work());
  const MergeState states[] = {{0, 10}, {0, 229}, {1, 0}, {2, 0}, {2, 399}, {3, 0}};
  for (const MergeState& state : states) {
    text += print_merge_state(state);
    const std::string torn = GENERATE("", "d", "done 9", "done 3 1000000000");
    const auto journal = parse_merge_journal(text + torn);
    REQUIRE(journal);
    CHECK(journal->state == state);
    CHECK(journal->valid_bytes == text.size());
  }
  const std::string first = print_merge_work(small_work());
  for (size_t size = 0; size < first.size(); ++size)
    CHECK_FALSE(parse_merge_journal(first.substr(0, size)));
}

TEST_CASE("A merge's journal that is damaged is refused with the line that is") {
  const std::string first = print_merge_work(small_work());
  for (const std::string line :
       {"done 4 0", "done 0 230", "done 0 231", "done 2 0", "done 1 5", "done 0 -1", "done -1 0",
        "done 0 99999999999999999999", "done 0 5 ", "done 0  5", "done 0", "done", "", "gone 0 5",
        "done 0 5\r", "done +0 5"}) {
    INFO(line);
    CHECK_THAT(error_of_journal(first + line + "\n"), Contains("damaged: line 2"));
  }
  CHECK_THAT(error_of_journal(first + "done 0 10\ndone 0 10\n"),
             Contains("line 3 does not follow"));
  CHECK_THAT(error_of_journal(first + "done 0 10\ndone 0 9\n"), Contains("line 3 does not follow"));
  CHECK_THAT(error_of_journal(first + "done 1 0\ndone 3 0\n"), Contains("line 3 does not follow"));
  CHECK_THAT(error_of_journal("\n"), Contains("line 1 is no JSON object"));
  CHECK_THAT(error_of_journal("[]\n"), Contains("line 1 is no JSON object"));
  CHECK_THAT(error_of_journal("{}\n"), Contains("no \"format\""));
}

/// `first` with `from` replaced by `to`.
std::string changed(const std::string& from, const std::string& to) {
  std::string text = print_merge_work(small_work());
  const size_t at = text.find(from);
  if (at == std::string::npos) return "not there: " + from;
  return text.replace(at, from.size(), to);
}

TEST_CASE("A merge's journal never names bytes outside the files") {
  CHECK_THAT(error_of_journal(changed("[64,100,200]", "[101,100,200]")),
             Contains("a segment leaves its shard /models/a b"));
  CHECK_THAT(error_of_journal(changed("[64,100,200]", "[64,99,200]")),
             Contains("a segment leaves the merged file"));
  CHECK_THAT(error_of_journal(changed("[64,100,200]", "[64,900,200]")),
             Contains("a segment leaves the merged file"));
  CHECK_THAT(error_of_journal(changed("[64,100,200]", "[9223372036854775807,100,200]")),
             Contains("a segment leaves its shard"));
  CHECK_THAT(error_of_journal(changed("[64,100,200]", "[64,100,9223372036854775808]")),
             Contains("is no size"));
  CHECK_THAT(error_of_journal(changed("[64,100,200]", "[64,100,-1]")), Contains("is no size"));
  CHECK_THAT(error_of_journal(changed("[64,100,200]", "[64,100,0]")), Contains("is empty"));
  CHECK_THAT(error_of_journal(changed("[64,100,200]", "[64,100]")), Contains("[from, to, size]"));
  CHECK_THAT(error_of_journal(changed("[64,100,200]", "[64,100,2e2]")), Contains("is no size"));
  CHECK_THAT(error_of_journal(changed("\"/c\"", "\"c\"")), Contains("no absolute path: c"));
  CHECK_THAT(error_of_journal(changed("\"/c\"", "\"/c\\u0000d\"")), Contains("no absolute path"));
  CHECK_THAT(error_of_journal(changed("\"/c\"", "3")), Contains("\"path\" is no text"));
  CHECK_THAT(error_of_journal(changed("\"header_bytes\":100", "\"header_bytes\":1001")),
             Contains("larger than the file"));
  CHECK_THAT(error_of_journal(changed("\"version\":1", "\"version\":2")),
             Contains("finish the merge with the dsctl that began it"));
  CHECK_THAT(error_of_journal(changed("\"inode\":17", "\"inode\":-17")), Contains("\"inode\""));
}

TEST_CASE("A merge's journal can't name a path that is not UTF-8, and says so") {
  MergeWork work = small_work();
  work.shards[2].path = "/c\xff";
  CHECK_THAT(tests::error_of([&] { print_merge_work(work); }), Contains("not valid UTF-8"));
}

}  // namespace
}  // namespace dsctl::gguf
