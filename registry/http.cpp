#include "registry/http.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <ctime>
#include <mutex>

#include "registry/curl_transfer.h"
#include "registry/error.h"
#include "registry/http_headers.h"
#include "registry/request_target.h"
#include "registry/retry.h"

namespace dsctl::registry {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

/// How one attempt ended.
struct Attempt {
  HttpResponse response;
  std::optional<std::string> failure;  // no answer: why
  bool hopeless = false;
  bool unreachable = false;  // no connection came about
  bool peer_is_public = true;
};

void check(const HttpRequest& request) {
  static constexpr std::array<std::string_view, 6> kMethods{"GET", "HEAD",  "POST",
                                                            "PUT", "PATCH", "DELETE"};
  if (std::find(kMethods.begin(), kMethods.end(), request.method) == kMethods.end()) {
    throw Error(printable_url(request.url) + ": method \"" + request.method + "\" is not known");
  }
}

std::string range_text(const HttpRequest& request) {
  if (!request.range) return "";
  return std::to_string(request.range->first) + "-" + std::to_string(request.range->second);
}

[[noreturn]] void throw_stopped(std::string_view url) {
  throw Error(printable_url(url) + ": stopped");
}

}  // namespace

std::optional<std::string_view> HttpResponse::header(std::string_view name) const {
  const auto past = headers.upper_bound(std::string(name));
  if (past == headers.begin() || std::prev(past)->first != name) return std::nullopt;
  return std::prev(past)->second;
}

struct HttpClient::Impl {
  explicit Impl(HttpOptions http_options)
      : options(std::move(http_options)),
        transfer(options),
        backoff(options.first_retry_ms, options.max_asked_wait_ms) {}

  Attempt attempt(const RequestTarget& target, const HttpRequest& request, std::stop_token stop);
  Attempt with_retries(const RequestTarget& target, const HttpRequest& request,
                       std::stop_token stop);
  std::optional<milliseconds> wait_before(int try_number, const Attempt& last,
                                          const HttpRequest& request);
  void pause(milliseconds time, std::string_view url, std::stop_token stop);
  CURLcode drive(const std::string& url, const int64_t& n_received, std::stop_token stop);

  HttpOptions options;
  CurlSet set;  // outlives the transfer's connections
  CurlTransfer transfer;
  Backoff backoff;
};

/// Runs the prepared transfer. Throws Error when stopped.
CURLcode HttpClient::Impl::drive(const std::string& url, const int64_t& n_received,
                                 std::stop_token stop) {
  const std::stop_callback wake_on_stop(stop, [this] { set.wake(); });
  struct InSet {
    Impl& impl;
    explicit InSet(Impl& owner) : impl(owner) { impl.set.add(impl.transfer, nullptr); }
    ~InSet() { impl.set.remove(impl.transfer); }
  };
  const InSet in_set(*this);
  auto last_byte = steady_clock::now();
  int64_t n_seen = 0;
  while (true) {
    set.perform();
    if (const auto done = set.next_done()) return done->code;
    if (stop.stop_requested()) throw_stopped(url);
    const auto now = steady_clock::now();
    if (n_received != n_seen) {
      n_seen = n_received;
      last_byte = now;
    }
    if (now - last_byte > milliseconds(options.stall_timeout_ms)) return CURLE_OPERATION_TIMEDOUT;
    set.wait(std::clamp(options.stall_timeout_ms / 4, 1, 500));
  }
}

Attempt HttpClient::Impl::attempt(const RequestTarget& target, const HttpRequest& request,
                                  std::stop_token stop) {
  Attempt result;
  std::string& body = result.response.body;
  int64_t n_received = 0;
  bool too_long = false;
  const auto sink = [&](std::span<const std::byte> data) -> size_t {
    n_received += static_cast<int64_t>(data.size());
    const size_t room = request.max_body_bytes - body.size();
    body.append(reinterpret_cast<const char*>(data.data()), std::min(room, data.size()));
    too_long = data.size() > room;
    return too_long ? 0 : data.size();
  };
  CurlTransfer::Request curl_request;
  curl_request.method = request.method;
  curl_request.body = request.body;
  curl_request.range = range_text(request);
  transfer.prepare(target, curl_request, sink);
  const CURLcode code = drive(target.url, n_received, stop);
  if (too_long && !request.range) {
    throw Error(printable_url(target.url) + ": answers with more than " +
                std::to_string(request.max_body_bytes) + " bytes, the most expected here");
  }
  if (code == CURLE_OPERATION_TIMEDOUT) {
    result.failure = printable_url(target.url) + ": no answer within " +
                     std::to_string(options.stall_timeout_ms / 1000.0).substr(0, 4) + " s";
  } else if (code != CURLE_OK && !too_long) {
    result.failure = transfer.describe(code);
  }
  result.hopeless = code != CURLE_OK && transfer.is_hopeless(code);
  result.unreachable = code == CURLE_COULDNT_RESOLVE_HOST || code == CURLE_COULDNT_CONNECT;
  result.peer_is_public = transfer.peer_is_public();
  result.response.status = transfer.head().status();
  result.response.headers = transfer.head().take_headers();
  result.response.url = target.url;
  return result;
}

/// How long to wait before the next try; nothing when there is to be none.
std::optional<milliseconds> HttpClient::Impl::wait_before(int try_number, const Attempt& last,
                                                          const HttpRequest& request) {
  if (try_number > request.retries || last.hopeless) return std::nullopt;
  if (last.failure) {
    // A name or port that isn't there is more often a typing error than a hiccup.
    constexpr int kUnreachableRetries = 2;
    if (last.unreachable && try_number > kUnreachableRetries) return std::nullopt;
    return backoff.delay(try_number, std::nullopt);
  }
  if (!is_retryable_status(last.response.status)) return std::nullopt;
  std::optional<milliseconds> asked;
  if (const auto header = last.response.header("retry-after")) {
    asked = parse_retry_after(*header, std::time(nullptr));
  }
  if (asked && asked->count() > options.max_asked_wait_ms) return std::nullopt;
  return backoff.delay(try_number, asked);
}

void HttpClient::Impl::pause(milliseconds time, std::string_view url, std::stop_token stop) {
  std::mutex mutex;
  std::condition_variable_any wakes;
  std::unique_lock lock(mutex);
  wakes.wait_for(lock, stop, time, [] { return false; });
  if (stop.stop_requested()) throw_stopped(url);
}

Attempt HttpClient::Impl::with_retries(const RequestTarget& target, const HttpRequest& request,
                                       std::stop_token stop) {
  for (int n_tries = 1;; ++n_tries) {
    Attempt result = attempt(target, request, stop);
    const auto wait = wait_before(n_tries, result, request);
    if (!wait) {
      if (result.failure) throw Error(*result.failure);
      return result;
    }
    if (options.on_retry) {
      const std::string what = result.failure ? *result.failure
                                              : printable_url(target.url) + ": HTTP " +
                                                    std::to_string(result.response.status);
      options.on_retry(what + "; again in " + std::to_string(wait->count()) + " ms");
    }
    pause(*wait, target.url, stop);
  }
}

HttpClient::HttpClient(HttpOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
HttpClient::~HttpClient() = default;

HttpResponse HttpClient::send(const HttpRequest& request, std::stop_token stop) {
  check(request);
  HttpRequest current = request;
  RequestTarget target = RequestTarget::of(request.url, request.headers);
  for (int n_redirects = 0;; ++n_redirects) {
    Attempt result = impl_->with_retries(target, current, stop);
    const auto location = result.response.header("location");
    if (!is_redirect_status(result.response.status) || !location || request.max_redirects == 0) {
      return std::move(result.response);
    }
    if (n_redirects == request.max_redirects) {
      throw Error(printable_url(request.url) + ": more than " +
                  std::to_string(request.max_redirects) + " redirects");
    }
    target = target.redirected(*location, result.peer_is_public);
    // As browsers do: a POST that is sent elsewhere becomes a GET, but for 307 and 308.
    if (result.response.status < 307 && current.method != "GET" && current.method != "HEAD") {
      current.method = "GET";
      current.body.clear();
    }
  }
}

const HttpOptions& HttpClient::options() const {
  return impl_->options;
}

}  // namespace dsctl::registry
