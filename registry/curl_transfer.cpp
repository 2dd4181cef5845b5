#include "registry/curl_transfer.h"

#include <array>
#include <cstdlib>
#include <cstring>

#include "registry/error.h"

namespace dsctl::registry {
namespace {

void init_curl() {
  // Once in a process; thread-safe as a static. Never cleaned up: the process may still use it.
  static const CURLcode code = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (code != CURLE_OK) {
    throw Error(std::string("libcurl can't start: ") + curl_easy_strerror(code));
  }
}

bool environment_names_proxy() {
  static constexpr std::array kNames{"http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy",
                                     "ALL_PROXY"};
  for (const char* name : kNames) {
    const char* value = std::getenv(name);
    if (value && *value) return true;
  }
  return false;
}

std::string user_agent(const HttpOptions& options) {
  return options.user_agent.empty() ? "dsctl/" DSCTL_VERSION : options.user_agent;
}

/// The certificates to trust, where not the system's: an option, or what OpenSSL's users set.
std::string ca_file(const HttpOptions& options) {
  if (!options.ca_file.empty()) return options.ca_file;
  const char* file = std::getenv("SSL_CERT_FILE");
  return file ? file : "";
}

bool names_header(const std::vector<std::string>& headers, std::string_view name) {
  for (const std::string& header : headers) {
    if (header.size() > name.size() && header[name.size()] == ':' &&
        curl_strnequal(header.c_str(), name.data(), name.size()) != 0) {
      return true;
    }
  }
  return false;
}

}  // namespace

CurlTransfer::CurlTransfer(const HttpOptions& options) : options_(options) {
  init_curl();
  renew();
}

CurlTransfer::~CurlTransfer() {
  curl_easy_cleanup(handle_);
  curl_slist_free_all(headers_);
}

void CurlTransfer::renew() {
  curl_easy_cleanup(handle_);
  handle_ = curl_easy_init();
  if (!handle_) throw Error("libcurl: no memory for a transfer");
}

void CurlTransfer::prepare(const RequestTarget& target, const Request& request, Sink sink) {
  curl_easy_reset(handle_);
  // A transfer that failed before it had a connection (a name that was not resolved) keeps its
  // buffer, and then libcurl 7.88 takes no other size. Connections belong to the set, not to it.
  if (curl_easy_setopt(handle_, CURLOPT_BUFFERSIZE, request.buffer_bytes) != CURLE_OK) renew();
  curl_slist_free_all(headers_);
  headers_ = nullptr;
  head_.clear();
  head_too_large_ = false;
  refused_peer_.clear();
  error_[0] = '\0';
  url_ = target.url;
  origin_ = target.origin;
  refuses_private_peer_ = target.refuses_private_peer;
  sink_ = std::move(sink);

  const auto set = [&](auto option, auto value) {
    const CURLcode code = curl_easy_setopt(handle_, option, value);
    if (code != CURLE_OK) {
      throw Error(printable_url(url_) + ": libcurl refuses option " +
                  std::to_string(static_cast<int>(option)) + ": " + curl_easy_strerror(code));
    }
  };
  set(CURLOPT_PRIVATE, static_cast<void*>(nullptr));
  set(CURLOPT_URL, url_.c_str());
  set(CURLOPT_PROTOCOLS_STR, "http,https");
  set(CURLOPT_FOLLOWLOCATION, 0L);  // request_target.h decides
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_SSL_VERIFYPEER, 1L);
  set(CURLOPT_SSL_VERIFYHOST, 2L);
  if (const std::string file = ca_file(options_); !file.empty()) {
    set(CURLOPT_CAINFO, file.c_str());
  }
  set(CURLOPT_HTTP_VERSION, request.http_version);
  set(CURLOPT_BUFFERSIZE, request.buffer_bytes);
  set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(options_.connect_timeout_ms));
  set(CURLOPT_TCP_KEEPALIVE, 1L);
  set(CURLOPT_USERAGENT, user_agent(options_).c_str());
  set(CURLOPT_ERRORBUFFER, error_);
  set(CURLOPT_HEADERFUNCTION, &CurlTransfer::on_header);
  set(CURLOPT_HEADERDATA, static_cast<void*>(this));
  set(CURLOPT_WRITEFUNCTION, &CurlTransfer::on_body);
  set(CURLOPT_WRITEDATA, static_cast<void*>(this));
  set(CURLOPT_PREREQFUNCTION, &CurlTransfer::on_connected);
  set(CURLOPT_PREREQDATA, static_cast<void*>(this));
  if (target.user_password) {
    set(CURLOPT_HTTPAUTH, static_cast<long>(CURLAUTH_BASIC));
    set(CURLOPT_USERNAME, target.user_password->first.c_str());
    set(CURLOPT_PASSWORD, target.user_password->second.c_str());
  }
  if (request.method == "HEAD") {
    set(CURLOPT_NOBODY, 1L);
  } else if (request.method != "GET") {
    set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
    set(CURLOPT_COPYPOSTFIELDS, request.body.c_str());
    if (request.method != "POST") set(CURLOPT_CUSTOMREQUEST, request.method.c_str());
  }
  if (!request.range.empty()) set(CURLOPT_RANGE, request.range.c_str());

  const auto append = [&](const std::string& header) {
    curl_slist* const longer = curl_slist_append(headers_, header.c_str());
    if (!longer) throw Error("libcurl: no memory for headers");
    headers_ = longer;
  };
  for (const std::string& header : target.headers)
    append(header);
  // Sizes and ranges are about the file, not about a compressed form of it.
  if (!names_header(target.headers, "accept-encoding")) append("Accept-Encoding: identity");
  if (request.method != "GET" && request.method != "HEAD") append("Expect:");
  set(CURLOPT_HTTPHEADER, headers_);
}

size_t CurlTransfer::on_header(char* data, size_t size, size_t count, void* self) {
  auto* transfer = static_cast<CurlTransfer*>(self);
  if (transfer->head_.add_line({data, size * count})) return size * count;
  transfer->head_too_large_ = true;
  return 0;
}

size_t CurlTransfer::on_body(char* data, size_t size, size_t count, void* self) {
  auto* transfer = static_cast<CurlTransfer*>(self);
  if (!transfer->sink_) return size * count;
  return transfer->sink_(std::as_bytes(std::span(data, size * count)));
}

int CurlTransfer::on_connected(void* self, char* peer_ip, char*, int peer_port, int) {
  auto* transfer = static_cast<CurlTransfer*>(self);
  if (!transfer->refuses_private_peer_ || !is_private_address(peer_ip) ||
      transfer->through_proxy(peer_port)) {
    return CURL_PREREQFUNC_OK;
  }
  transfer->refused_peer_ = peer_ip;
  return CURL_PREREQFUNC_ABORT;
}

bool CurlTransfer::through_proxy(int peer_port) const {
  return peer_port != origin_.port && environment_names_proxy();
}

bool CurlTransfer::peer_is_public() const {
  long port = 0;
  char* ip = nullptr;
  curl_easy_getinfo(handle_, CURLINFO_PRIMARY_PORT, &port);
  curl_easy_getinfo(handle_, CURLINFO_PRIMARY_IP, &ip);
  if (is_private_host(origin_.host)) return false;
  return through_proxy(static_cast<int>(port)) || !ip || !is_private_address(ip);
}

std::string CurlTransfer::describe(CURLcode code) const {
  const std::string where = printable_url(url_) + ": ";
  if (!refused_peer_.empty()) {
    return where + "redirected to by a public host, but lies at the private address " +
           refused_peer_ + ": refused";
  }
  if (head_too_large_) {
    return where + "headers of more than " + std::to_string(ResponseHead::kMaxBytes) +
           " bytes or " + std::to_string(ResponseHead::kMaxHeaders) + " lines";
  }
  return where + (error_[0] ? error_ : curl_easy_strerror(code));
}

bool CurlTransfer::is_hopeless(CURLcode code) const {
  if (!refused_peer_.empty() || head_too_large_) return true;
  switch (code) {
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
    case CURLE_OUT_OF_MEMORY:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_ENGINE_INITFAILED:
    case CURLE_SSL_ISSUER_ERROR:
      return true;
    default:
      return false;
  }
}

CurlSet::CurlSet(long max_idle_connections) {
  init_curl();
  handle_ = curl_multi_init();
  if (!handle_) throw Error("libcurl: no memory for a set of transfers");
  curl_multi_setopt(handle_, CURLMOPT_MAXCONNECTS, max_idle_connections);
}

CurlSet::~CurlSet() {
  curl_multi_cleanup(handle_);
}

void CurlSet::add(CurlTransfer& transfer, void* data) {
  curl_easy_setopt(transfer.handle(), CURLOPT_PRIVATE, data);
  const CURLMcode code = curl_multi_add_handle(handle_, transfer.handle());
  if (code != CURLM_OK) {
    throw Error(std::string("libcurl can't start a transfer: ") + curl_multi_strerror(code));
  }
}

void CurlSet::remove(CurlTransfer& transfer) {
  curl_multi_remove_handle(handle_, transfer.handle());
}

void CurlSet::perform() {
  int n_running = 0;
  const CURLMcode code = curl_multi_perform(handle_, &n_running);
  if (code != CURLM_OK) {
    throw Error(std::string("libcurl can't go on: ") + curl_multi_strerror(code));
  }
}

void CurlSet::wait(int timeout_ms) {
  curl_multi_poll(handle_, nullptr, 0, timeout_ms, nullptr);
}

void CurlSet::wake() {
  curl_multi_wakeup(handle_);
}

std::optional<CurlSet::Done> CurlSet::next_done() {
  int n_left = 0;
  while (const CURLMsg* message = curl_multi_info_read(handle_, &n_left)) {
    if (message->msg != CURLMSG_DONE) continue;
    Done done;
    done.code = message->data.result;
    char* data = nullptr;
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &data);
    done.data = data;
    return done;
  }
  return std::nullopt;
}

}  // namespace dsctl::registry
