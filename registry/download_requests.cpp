// What becomes of a request: started, judged, its bytes stored, ended well or not.
#include <algorithm>
#include <ctime>

#include "registry/downloader.h"
#include "registry/error.h"

namespace dsctl::registry {
namespace {

constexpr int kMostRedirects = 10;
constexpr int kMostWrongSizes = 3;           // answers about a file of another size
constexpr int kMostWholeAnswers = 3;         // 200 for a range, in a row: ranges are given up
constexpr size_t kMostSwallowed = 64 << 10;  // of an error's body, to keep the connection

}  // namespace

std::string Downloader::origin_key(const RequestTarget& target) const {
  return target.origin.scheme + "://" + target.origin.host + ":" +
         std::to_string(target.origin.port);
}

void Downloader::take_urls(Clock::time_point now) {
  for (const Locator::Result& result : locator_.take_results()) {
    FileDownload& file = *files_[result.file_idx];
    if (result.error) std::rethrow_exception(result.error);
    file.located(*result.url, steady_ms(now));
  }
}

void Downloader::start_requests(Clock::time_point now) {
  int n_busy = 0;
  for (const auto& slot : slots_)
    n_busy += slot->file != nullptr;
  for (const auto& slot : slots_) {
    if (n_busy >= n_allowed_) return;
    if (slot->file) continue;
    if (!start_one(*slot, now)) return;
    ++n_busy;
  }
}

/// Gives an idle connection the first work there is, in the order of the files.
bool Downloader::start_one(Slot& slot, Clock::time_point now) {
  do {
    for (const auto& file : files_) {
      if (!file->wants_requests()) continue;
      const RequestTarget* const target = file->target(steady_ms(now));
      if (!target) {
        if (file->url_state == FileDownload::UrlState::kUnknown) {
          file->url_state = FileDownload::UrlState::kAsked;
          locator_.ask(file->file_idx(), file->task().file);
        }
        continue;
      }
      const auto held = held_.find(origin_key(*target));
      if (held != held_.end() && held->second > now) continue;
      auto work = file->next_work(now, options_.chunk_bytes, options_.jobs);
      if (!work) continue;
      slot.file = file.get();
      slot.work = std::move(*work);
      slot.target = *target;
      slot.generation = file->generation;
      slot.n_redirects = 0;
      ++file->n_running;
      begin_request(slot, now);
      return true;
    }
  } while (activate_next(now));
  return false;
}

void Downloader::begin_request(Slot& slot, Clock::time_point now) {
  slot.is_judged = false;
  slot.is_sizeless = false;
  slot.is_paused = false;
  slot.is_changed = false;
  slot.is_wrong_size = false;
  slot.n_swallowed = 0;
  slot.failure.clear();
  slot.error = nullptr;
  slot.begin = slot.work.chunk.position;
  slot.last_byte = slot.window_begin = now;
  slot.window_position = slot.begin;

  CurlTransfer::Request request;
  // One connection for one request: many of them fill a link better than streams inside one.
  request.http_version = CURL_HTTP_VERSION_1_1;
  request.buffer_bytes = 512 << 10;
  if (rate_.is_limited()) {
    request.buffer_bytes = std::clamp<long>(
        static_cast<long>(options_.limit_bytes_per_second / 100), 4 << 10, 256 << 10);
  }
  if (!wants_everything(slot)) {
    request.range = std::to_string(slot.begin) + "-" + std::to_string(slot.work.chunk.end - 1);
  }
  slot.transfer.prepare(slot.target, request, [this, &slot](std::span<const std::byte> data) {
    return on_body(slot, data);
  });
  set_.add(slot.transfer, &slot);
}

/// libcurl's callback: no exception may leave it.
size_t Downloader::on_body(Slot& slot, std::span<const std::byte> data) {
  try {
    if (!slot.is_judged) judge(slot);
    if (!slot.failure.empty() || slot.is_changed || slot.is_wrong_size) return 0;
    const bool has_bytes =
        slot.verdict.kind == Verdict::kRange || slot.verdict.kind == Verdict::kWhole;
    if (!has_bytes) {
      slot.n_swallowed += data.size();
      return slot.n_swallowed > kMostSwallowed ? 0 : data.size();
    }
    const auto now = Clock::now();
    if (!rate_.allows(now)) {
      slot.is_paused = true;
      return CURL_WRITEFUNC_PAUSE;
    }
    slot.last_byte = now;
    rate_.take(static_cast<int64_t>(data.size()));
    fetched_bytes_ += static_cast<int64_t>(data.size());
    return store(slot, data);
  } catch (...) {
    slot.error = std::current_exception();
    return 0;
  }
}

size_t Downloader::store(Slot& slot, std::span<const std::byte> data) {
  PartialFile& partial = slot.file->partial();
  Chunk& chunk = slot.work.chunk;
  if (slot.is_sizeless) {
    partial.write_raw(chunk.position, data);
    chunk.position += static_cast<int64_t>(data.size());
    return data.size();
  }
  // A longer body is cut off where the chunk ends; that ends the connection too.
  const auto n =
      static_cast<size_t>(std::min<int64_t>(chunk.missing(), static_cast<int64_t>(data.size())));
  if (slot.work.kind == FileWork::Kind::kStream) {
    partial.write_missing(chunk, data.first(n), slot.epoch);
  } else {
    partial.write(chunk, data.first(n), slot.epoch);
  }
  slot.file->n_relocations = 0;
  return n;
}

void Downloader::judge(Slot& slot) {
  slot.is_judged = true;
  slot.verdict =
      judge_response(slot.transfer.head(), slot.begin,
                     wants_everything(slot) ? -1 : slot.work.chunk.end, std::time(nullptr));
  if (slot.verdict.kind == Verdict::kRange || slot.verdict.kind == Verdict::kWhole) accept(slot);
}

/// Decides whether the bytes of a 206 or 200 are those that are wanted; sets `failure`,
/// `is_changed` or `is_wrong_size` when not.
void Downloader::accept(Slot& slot) {
  FileDownload& file = *slot.file;
  if (slot.verdict.kind == Verdict::kRange) {
    ++file.n_range_answers;
    file.n_whole_answers = 0;
    if (slot.work.kind == FileWork::Kind::kStream) {
      slot.failure = "answers HTTP 206 to a request for the whole file";
      return;
    }
    if (!accept_size(slot) || !accept_validator(slot)) return;
  } else {
    if (!accept_size(slot) || !accept_validator(slot) || !accept_whole(slot)) return;
  }
  file.is_confirmed = true;
  file.reached(slot.target);
}

/// Compares, or learns, the size.
bool Downloader::accept_size(Slot& slot) {
  FileDownload& file = *slot.file;
  PartialFile& partial = file.partial();
  const int64_t total = slot.verdict.total_bytes;
  if (partial.has_size()) {
    slot.is_wrong_size = total >= 0 && total != partial.size_bytes();
    return !slot.is_wrong_size;
  }
  if (slot.verdict.kind == Verdict::kWhole && total < 0) {
    slot.is_sizeless = true;
    return true;
  }
  if (total < 0) {
    // A range of a file of unknown length: only the whole of it shows where it ends.
    file.turn_rangeless();
    slot.failure = "answers with a range without telling the file's size";
    return false;
  }
  partial.start_anew(file.header(total));
  file.from_before_.assign(partial.blocks().size(), false);
  start_hash(file);
  if (slot.verdict.kind == Verdict::kRange) {
    // The probe becomes an ordinary chunk, of the whole blocks it covers.
    slot.work.kind = FileWork::Kind::kRange;
    slot.work.chunk = partial.assign(slot.work.chunk.end).value_or(Chunk());
  }
  return true;
}

bool Downloader::accept_validator(Slot& slot) {
  FileDownload& file = *slot.file;
  PartialFile& partial = file.partial();
  if (slot.is_sizeless || slot.verdict.validator.empty()) {
    slot.epoch = partial.epoch();
    // Nothing says whether an earlier run's bytes are of the same file.
    slot.is_changed = !slot.is_sizeless && !file.has_digest() && partial.validator().empty() &&
                      !file.is_confirmed && partial.arrived_bytes() > 0;
    return !slot.is_changed;
  }
  // With a digest the end tells, and only what came under another validator is under suspicion:
  // the servers behind one name don't always agree about validators.
  const bool differs = partial.validator() != slot.verdict.validator;
  const bool is_first = partial.validator().empty() && partial.arrived_bytes() == 0;
  slot.is_changed = differs && !is_first && !file.has_digest();
  if (slot.is_changed) return false;
  slot.epoch = partial.see_validator(slot.verdict.validator);
  return true;
}

/// A 200: the body is the whole file, whatever was asked for.
bool Downloader::accept_whole(Slot& slot) {
  FileDownload& file = *slot.file;
  if (slot.work.kind == FileWork::Kind::kStream) return true;
  if (slot.is_sizeless) {
    file.turn_rangeless();
    slot.work.chunk = {.begin = 0, .end = INT64_MAX, .position = 0, .crc = 0};
    return true;
  }
  if ((file.n_range_answers == 0 || file.is_rangeless) && file.n_running == 1) {
    // The server knows no ranges. This very answer is the stream, if it is taken from its start.
    file.turn_rangeless();
    file.partial().assign_all();
    slot.work.kind = FileWork::Kind::kStream;
    slot.work.chunk = {.begin = 0, .end = file.partial().size_bytes(), .position = 0, .crc = 0};
    slot.begin = 0;
    return true;
  }
  if (slot.begin == 0) return true;  // right as far as the chunk goes
  slot.failure = "answers HTTP 200 with the whole file to a request for a range";
  if (++file.n_whole_answers >= kMostWholeAnswers) file.turn_rangeless();
  return false;
}

void Downloader::end_requests() {
  while (const auto done = set_.next_done()) {
    end_request(*static_cast<Slot*>(done->data), done->code, Clock::now());
  }
}

void Downloader::free_slot(Slot& slot) {
  set_.remove(slot.transfer);
  --slot.file->n_running;
  slot.file = nullptr;
  slot.is_paused = false;
}

void Downloader::end_request(Slot& slot, CURLcode code, Clock::time_point now) {
  if (slot.error) std::rethrow_exception(slot.error);
  FileDownload& file = *slot.file;
  if (!slot.is_judged && (code == CURLE_OK || slot.transfer.head().status() >= 300)) {
    judge(slot);  // an answer without a body
  }
  if (slot.is_changed) {
    const int64_t total = slot.verdict.total_bytes;
    restart(file, total >= 0 ? total : file.partial().size_bytes());
    return;
  }
  const bool has_bytes =
      slot.is_judged && slot.failure.empty() && !slot.is_wrong_size &&
      (slot.verdict.kind == Verdict::kRange || slot.verdict.kind == Verdict::kWhole);
  Chunk& chunk = slot.work.chunk;
  if (has_bytes && slot.is_sizeless && code == CURLE_OK) {
    const int64_t size_bytes = chunk.position;
    free_slot(slot);
    file.partial().declare_size(file.header(size_bytes));
    file.from_before_.assign(file.partial().blocks().size(), false);
    start_hash(file);
    return;
  }
  if (has_bytes && chunk.missing() == 0) {
    const std::chrono::duration<double> took = now - slot.window_begin;
    const auto n_bytes = static_cast<double>(chunk.position - slot.window_position);
    if (took.count() > 0) {
      const double rate = n_bytes / took.count();
      usual_rate_ = usual_rate_ > 0 ? usual_rate_ * 0.8 + rate * 0.2 : rate;
    }
    n_allowed_ = std::min(n_allowed_ + 1, std::max(1, options_.jobs));
    free_slot(slot);
    return;
  }
  if (has_bytes) {
    end_failed(slot, code == CURLE_OK ? "the answer ended early" : slot.transfer.describe(code),
               now);
    return;
  }
  if (!slot.is_judged && code != CURLE_OK && slot.transfer.is_hopeless(code)) {
    give_up(file, slot.transfer.describe(code));
  }
  if (slot.is_judged && slot.failure.empty() && slot.verdict.kind == Verdict::kRedirect) {
    if (++slot.n_redirects > kMostRedirects) {
      give_up(file, printable_url(slot.target.url) + ": more than " +
                        std::to_string(kMostRedirects) + " redirects");
    }
    slot.target = slot.target.redirected(slot.verdict.location, slot.transfer.peer_is_public());
    set_.remove(slot.transfer);
    begin_request(slot, now);
    return;
  }
  const std::string where = printable_url(slot.target.url) + ": ";
  if (!slot.is_judged) return end_failed(slot, slot.transfer.describe(code), now);
  if (!slot.failure.empty()) return end_failed(slot, where + slot.failure, now);
  const bool is_unsatisfiable = slot.verdict.kind == Verdict::kUnsatisfiable;
  if (is_unsatisfiable && !file.partial().has_size() && slot.verdict.total_bytes <= 0) {
    // No range of an empty file is satisfiable.
    free_slot(slot);
    file.partial().start_anew(file.header(0));
    start_hash(file);
    return;
  }
  if (slot.is_wrong_size ||
      (is_unsatisfiable && file.partial().has_size() && slot.verdict.total_bytes >= 0 &&
       slot.verdict.total_bytes != file.partial().size_bytes())) {
    const int64_t total = slot.verdict.total_bytes;
    const std::string reason = where + "has " + std::to_string(total) + " bytes, expected " +
                               std::to_string(file.partial().size_bytes());
    if (file.task().file.size_bytes < 0 && !file.has_digest()) return restart(file, total);
    if (++file.n_wrong_sizes > kMostWrongSizes) give_up(file, reason);
    return end_failed(slot, reason, now);
  }
  if (slot.verdict.kind == Verdict::kExpired) {
    const std::string reason = where + slot.verdict.reason;
    try {
      file.expire(slot.generation, reason);
    } catch (const Error&) {
      give_up(file, reason);
    }
    return_work(slot, reason, milliseconds(0));
    return;
  }
  if (slot.verdict.kind == Verdict::kLater) {
    const milliseconds delay = backoff_.delay(slot.work.n_attempts + 1, slot.verdict.retry_after);
    slow_down(slot.target, delay, now);
  }
  end_failed(slot, where + slot.verdict.reason, now);
}

/// A server asked to be left alone for a while: no new request to it, and fewer at a time.
void Downloader::slow_down(const RequestTarget& target, milliseconds delay, Clock::time_point now) {
  auto& until = held_[origin_key(target)];
  until = std::max(until, now + delay);
  // One wave of refusals is one reason.
  if (now - last_slow_down_ < std::max(delay, milliseconds(1000))) return;
  last_slow_down_ = now;
  n_allowed_ = std::max(1, n_allowed_ / 2);
}

/// The request brought less than it should: the rest is asked for again, at once where something
/// came, later and later where nothing does.
void Downloader::end_failed(Slot& slot, const std::string& reason, Clock::time_point now) {
  FileDownload& file = *slot.file;
  const bool progressed = slot.is_judged && slot.work.chunk.position > slot.begin;
  if (progressed) {
    slot.work.n_attempts = 0;
    return return_work(slot, reason, milliseconds(0));
  }
  if (++slot.work.n_attempts >= options_.max_attempts) {
    give_up(file,
            reason + "; gave up after " + std::to_string(options_.max_attempts) + " attempts");
  }
  std::optional<milliseconds> asked;
  if (slot.is_judged) asked = slot.verdict.retry_after;
  slot.work.not_before = now + backoff_.delay(slot.work.n_attempts, asked);
  return_work(slot, reason, std::chrono::ceil<milliseconds>(slot.work.not_before - now));
}

void Downloader::return_work(Slot& slot, const std::string& reason, milliseconds delay) {
  FileDownload& file = *slot.file;
  FileWork work = std::move(slot.work);
  free_slot(slot);
  file.give_back(std::move(work));
  if (Clock::now() - file.last_event < kEventInterval && delay.count() == 0) return;
  tell(file, DownloadEventType::kRetry,
       file.name() + ": " + reason +
           (delay.count() > 0 ? "; again in " + std::to_string(delay.count()) + " ms" : ""));
}

void Downloader::give_up(const FileDownload& file, const std::string& reason) const {
  throw Error(file.name() + ": " + reason + "; what arrived stays in " +
              file.task().partial.string());
}

}  // namespace dsctl::registry
