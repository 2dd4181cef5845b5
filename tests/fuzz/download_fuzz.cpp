// What a server's headers, a URL and a journal left on disk may hold. The first byte chooses the
// parser, so that one corpus serves all.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "registry/chunk_journal.h"
#include "registry/error.h"
#include "registry/http_headers.h"
#include "registry/request_target.h"
#include "registry/response_check.h"
#include "registry/url.h"

namespace {

using namespace dsctl::registry;

void require(bool holds) {
  if (!holds) std::abort();
}

void check_journal(std::string_view bytes) {
  const auto content = parse_journal(bytes);
  if (!content) return;
  require(content->valid_bytes <= bytes.size());
  require(content->blocks.size() == block_count_for(content->header.size_bytes));
  const auto again = parse_journal(bytes.substr(0, content->valid_bytes));
  require(again && again->header == content->header);
  require(again->valid_bytes == content->valid_bytes);
  for (size_t i = 0; i < content->blocks.size(); ++i) {
    require(content->blocks[i].state != BlockState::kAssigned);
    require(content->blocks[i].crc == again->blocks[i].crc);
  }
}

/// Bytes after a checksum that fits: the fuzzer can't guess those.
void check_journal_records(std::string_view bytes) {
  JournalHeader header;
  header.size_bytes = 1'000'000;
  std::string journal = journal_header_record(header);
  while (bytes.size() >= 4) {
    const auto first = static_cast<size_t>(static_cast<unsigned char>(bytes[1])) * 7;
    const auto n_blocks = static_cast<size_t>(static_cast<unsigned char>(bytes[2]));
    const std::vector<uint32_t> crcs(n_blocks, static_cast<unsigned char>(bytes[3]));
    switch (bytes[0] & 3) {
      case 0:
        journal += journal_arrived_record(first, crcs, 0);
        break;
      case 1:
        journal += journal_unverified_record(first, n_blocks);
        break;
      case 2:
        journal += journal_missing_record(first, n_blocks);
        break;
      case 3:
        journal += journal_validator_record(bytes.substr(4, n_blocks));
        break;
    }
    bytes.remove_prefix(4);
  }
  check_journal(journal);
}

void check_values(std::string_view text) {
  if (const auto range = parse_content_range(text)) {
    require(range->begin < range->end || (range->begin == -1 && range->total >= 0));
    require(range->total < 0 || range->end <= range->total);
  }
  if (const auto wait = parse_retry_after(text, 784111777)) {
    require(wait->count() >= 0 && wait->count() <= 86'400'000);
  }
  parse_http_date(text);
  parse_link(text, "next");
  parse_decimal(text);
}

void check_head(std::string_view text) {
  ResponseHead head;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size() - 1) + 1;
    if (!head.add_line(text.substr(0, end))) return;
    text.remove_prefix(end);
  }
  const ResponseVerdict verdict = judge_response(head, 100, 200, 0);
  if (verdict.kind == Verdict::kRange) {
    require(verdict.begin == 100 && verdict.end > 100 && verdict.end <= 200);
  }
  if (verdict.kind == Verdict::kRedirect) {
    RequestTarget::of("https://hub.example/a", {"Authorization: secret", "Accept: a"})
        .redirected(verdict.location, true);
  }
}

void check_url(std::string_view text) {
  const std::string shown = printable_url(text);
  require(shown.find('?') == std::string::npos || text.find_first_of("?\x7f") != text.npos ||
          shown.size() <= text.size());
  require(!is_private_address(text) || is_private_host(text));
  const RequestTarget from = RequestTarget::of("https://hub.example/a", {"Cookie: secret"});
  const RequestTarget to = from.redirected(text, true);
  require(to.origin.scheme == "https");
  require(!is_private_host(to.origin.host));
  require(to.headers.empty() || to.origin == from.origin);
  split_url(resolve_url(to.url, text));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    switch (data[0] % 5) {
      case 0:
        check_journal(text);
        break;
      case 1:
        check_journal_records(text);
        break;
      case 2:
        check_values(text);
        break;
      case 3:
        check_head(text);
        break;
      case 4:
        check_url(text);
        break;
    }
  } catch (const Error&) {
    // refused with a message: what is expected of broken input
  }
  return 0;
}
