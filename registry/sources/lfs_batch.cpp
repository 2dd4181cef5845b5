#include "registry/sources/lfs_batch.h"

#include <algorithm>
#include <ctime>

#include "registry/error.h"
#include "registry/model_name.h"
#include "registry/sources/json_reader.h"
#include "registry/sources/remote_path.h"
#include "registry/sources/remote_url.h"
#include "registry/sources/signed_url.h"
#include "registry/url.h"

namespace dsctl::registry {
namespace {

constexpr size_t kMaxAnswers = 10'000;
constexpr size_t kMaxHeaders = 64;

/// "2026-01-31T12:00:00Z" (also with a fraction or an offset) in seconds of Unix time.
std::optional<int64_t> parse_rfc3339(const std::string& text) {
  std::tm parts{};
  const char* rest = ::strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &parts);
  if (!rest) return std::nullopt;
  int64_t seconds = ::timegm(&parts);
  if (*rest == '.') {
    ++rest;
    while (*rest >= '0' && *rest <= '9')
      ++rest;
  }
  if ((*rest == '+' || *rest == '-') && std::string_view(rest).size() == 6 && rest[3] == ':') {
    const auto digit = [&](int i) { return static_cast<int64_t>(rest[i] - '0'); };
    const int64_t offset = (digit(1) * 10 + digit(2)) * 3600 + (digit(4) * 10 + digit(5)) * 60;
    seconds += *rest == '-' ? offset : -offset;
  }
  return seconds;
}

/// expires_in comes before expires_at, as in git-lfs.
int64_t life_of(const Json& action, const std::string& what) {
  const auto in = action.find("expires_in");
  if (in != action.end() && in->is_number_integer() && in->get<int64_t>() != 0) {
    return std::clamp<int64_t>(in->get<int64_t>(), 1, 1 << 30);
  }
  const auto at = parse_rfc3339(json_text(action, "expires_at", what).value_or(""));
  if (!at || *at < 0) return 0;  // the year 1 stands for "never" in some servers' answers
  return std::clamp<int64_t>(*at - static_cast<int64_t>(std::time(nullptr)), 1, 1 << 30);
}

std::vector<std::string> headers_of(const Json& action, const std::string& what) {
  std::vector<std::string> headers;
  const Json* object = json_object(action, "header", what);
  if (!object) return headers;
  if (object->size() > kMaxHeaders) throw Error(what + ": header: more than 64 of them");
  for (const auto& [name, value] : object->items()) {
    const auto line =
        value.is_string() ? header_line(name, value.get<std::string>()) : std::nullopt;
    if (!line) throw Error(what + ": header: \"" + printable_text(name) + "\" is no header");
    headers.push_back(*line);
  }
  return headers;
}

LfsAnswer parse_object(const Json& item, const std::string& what) {
  require_object(item, what);
  LfsAnswer answer;
  const std::optional<Digest> oid = json_sha256(item, "oid", what);
  if (!oid) throw Error(what + ": oid is missing");
  answer.oid = *oid;
  const std::string where = what + ": object " + oid->short_hex();
  answer.is_authenticated = json_flag(item, "authenticated", where).value_or(false);
  if (const Json* error = json_object(item, "error", where)) {
    const auto code = error->find("code");
    const bool has_code = code != error->end() && code->is_number_integer();
    answer.error_code =
        has_code ? static_cast<int>(std::clamp<int64_t>(code->get<int64_t>(), 1, 999)) : 500;
    answer.error_message = printable_text(json_text(*error, "message", where).value_or(""));
    return answer;
  }
  const Json* actions = json_object(item, "actions", where);
  const Json* download = actions ? json_object(*actions, "download", where) : nullptr;
  if (!download) {
    answer.error_code = 404;
    answer.error_message = "the server names no place to download it from";
    return answer;
  }
  answer.url = json_text(*download, "href", where).value_or("");
  const std::optional<Url> url = Url::parse(answer.url);
  if (!url || (url->scheme != "https" && url->scheme != "http")) {
    throw Error(where + ": href \"" + printable_text(answer.url) + "\", expected http or https");
  }
  answer.headers = headers_of(*download, where);
  answer.life_seconds = life_of(*download, where);
  return answer;
}

bool has_authorization(const std::vector<std::string>& headers) {
  return std::any_of(headers.begin(), headers.end(), [](const std::string& line) {
    return starts_with_ignoring_case(line, "authorization:");
  });
}

std::string error_text(const LfsAnswer& answer) {
  std::string why = answer.error_message;
  if (why.empty() && answer.error_code == 404) why = "the server does not have it";
  if (why.empty() && answer.error_code == 410) why = "the server has removed it";
  return "git-lfs object " + answer.oid.short_hex() + ": error " +
         std::to_string(answer.error_code) + (why.empty() ? "" : ": " + why);
}

}  // namespace

std::string lfs_batch_request(std::span<const LfsPointer> objects, std::string_view git_ref) {
  Json body;
  body["operation"] = "download";
  body["transfers"] = {"basic"};
  if (!git_ref.empty()) body["ref"]["name"] = git_ref;
  body["hash_algo"] = "sha256";
  body["objects"] = Json::array();
  for (const LfsPointer& object : objects)
    body["objects"].push_back({{"oid", object.oid.hex()}, {"size", object.size_bytes}});
  return body.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::vector<LfsAnswer> parse_lfs_batch(std::string_view json, const std::string& what) {
  const Json root = parse_json(json, what);
  require_object(root, what);
  const std::string transfer = json_text(root, "transfer", what).value_or("basic");
  if (transfer != "basic") {
    throw Error(what + ": transfer \"" + printable_text(transfer) + "\", asked for basic");
  }
  const std::string algorithm = json_text(root, "hash_algo", what).value_or("sha256");
  if (algorithm != "sha256") {
    throw Error(what + ": hash_algo \"" + printable_text(algorithm) + "\", expected sha256");
  }
  const Json* objects = json_array(root, "objects", what);
  if (!objects) throw Error(what + ": objects is missing");
  if (objects->size() > kMaxAnswers) throw Error(what + ": too many objects");
  std::vector<LfsAnswer> answers;
  for (const Json& item : *objects)
    answers.push_back(parse_object(item, what));
  return answers;
}

std::string lfs_url_of(std::string_view remote) {
  while (remote.ends_with('/'))
    remote.remove_suffix(1);
  std::string url(remote);
  return url + (url.ends_with(".git") ? "/info/lfs" : ".git/info/lfs");
}

struct LfsClient::Entry {
  LfsPointer object;
  std::optional<LfsAnswer> answer;
  int64_t expires_at_ms = 0;
};

LfsClient::LfsClient(std::string url, std::string git_ref, std::optional<Credentials> credentials,
                     const HttpOptions& http)
    : url_(std::move(url)),
      git_ref_(std::move(git_ref)),
      credentials_(std::move(credentials)),
      client_(http) {}

LfsClient::~LfsClient() = default;

void LfsClient::add(const LfsPointer& object) {
  index_of(object);
}

size_t LfsClient::index_of(const LfsPointer& object) {
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (entries_[i].object.oid == object.oid) return i;
  }
  entries_.push_back({object, std::nullopt, 0});
  return entries_.size() - 1;
}

DownloadUrl LfsClient::locate(const LfsPointer& object, std::stop_token stop) {
  const size_t idx = index_of(object);
  const auto is_over = [](const Entry& entry) {
    return entry.expires_at_ms != 0 && steady_ms_after(0) >= entry.expires_at_ms;
  };
  if (!entries_[idx].answer || is_over(entries_[idx])) ask(idx, stop);
  if (!entries_[idx].answer) {
    throw Error(printable_url(url_) + ": the answer leaves out object " + object.oid.short_hex());
  }
  // Handed out once: who asks again has found that it does not serve.
  const LfsAnswer answer = *std::exchange(entries_[idx].answer, std::nullopt);
  if (answer.error_code != 0) throw Error(error_text(answer));
  const std::optional<Url> from = Url::parse(url_);
  const std::optional<Url> to = Url::parse(answer.url);
  if (is_private_host(to->host) && !is_private_host(from->host)) {
    throw Error("git-lfs object " + answer.oid.short_hex() + ": lies at the private address " +
                to->host + "; refused");
  }
  DownloadUrl result = signed_download_url(answer.url, answer.headers);
  if (entries_[idx].expires_at_ms != 0) result.expires_at_ms = entries_[idx].expires_at_ms;
  const bool own = credentials_ && to->origin() == from->origin();
  if (own && !answer.is_authenticated && !has_authorization(result.headers)) {
    result.headers.push_back(basic_authorization(*credentials_));
  }
  return result;
}

void LfsClient::ask(size_t first_idx, std::stop_token stop) {
  for (;;) {
    std::vector<LfsPointer> objects = {entries_[first_idx].object};
    for (size_t i = first_idx + 1; i < entries_.size() && objects.size() < max_batch_; ++i) {
      if (!entries_[i].answer) objects.push_back(entries_[i].object);
    }
    const HttpResponse response = post(lfs_batch_request(objects, git_ref_), stop);
    if (response.status == 413 && objects.size() > 1) {
      max_batch_ = objects.size() / 2;
      continue;
    }
    if (response.status != 200) fail(response);
    store(parse_lfs_batch(response.body, printable_url(url_)));
    return;
  }
}

HttpResponse LfsClient::post(const std::string& body, std::stop_token stop) {
  for (;;) {
    HttpRequest request;
    request.method = "POST";
    request.url = url_ + "/objects/batch";
    request.body = body;
    request.headers = {"Accept: application/vnd.git-lfs+json",
                       "Content-Type: application/vnd.git-lfs+json"};
    if (needs_credentials_) request.headers.push_back(basic_authorization(*credentials_));
    HttpResponse response = client_.send(request, stop);
    if (response.status != 401 || needs_credentials_ || !credentials_) return response;
    needs_credentials_ = true;
  }
}

void LfsClient::store(const std::vector<LfsAnswer>& answers) {
  for (const LfsAnswer& answer : answers) {
    const auto entry = std::find_if(entries_.begin(), entries_.end(),
                                    [&](const Entry& one) { return one.object.oid == answer.oid; });
    if (entry == entries_.end()) continue;  // not asked for
    entry->answer = answer;
    entry->expires_at_ms = answer.life_seconds == 0 ? 0 : steady_ms_after(answer.life_seconds);
  }
}

void LfsClient::fail(const HttpResponse& response) const {
  std::string message;
  const Json root = Json::parse(response.body, nullptr, /*allow_exceptions=*/false);
  if (root.is_object()) {
    const auto found = root.find("message");
    if (found != root.end() && found->is_string()) {
      message = ": " + printable_text(found->get<std::string>());
    }
  }
  const std::string where = printable_url(url_);
  if (response.status == 401 || response.status == 403) {
    throw Error(where + ": access refused" + message +
                (credentials_ ? "" : "; put user and password into the URL or ~/.netrc"));
  }
  if (response.status == 404) throw Error(where + ": there is no git-lfs server here" + message);
  if (response.status == 509) throw Error(where + ": the server's bandwidth is used up" + message);
  throw Error(where + ": status " + std::to_string(response.status) + message);
}

}  // namespace dsctl::registry
