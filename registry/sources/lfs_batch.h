// The Git-LFS batch API: which objects, and where each can be fetched.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "registry/download.h"
#include "registry/http.h"
#include "registry/sources/credentials.h"
#include "registry/sources/lfs_pointer.h"

namespace dsctl::registry {

/// One object of a batch's answer: where it is, or why not.
struct LfsAnswer {
  Digest oid;
  std::string url;
  std::vector<std::string> headers;  // to be sent with the request for `url`
  bool is_authenticated = false;     // the headers are all that is needed
  int64_t life_seconds = 0;          // how long the URL is valid; 0: not said
  int error_code = 0;                // 0: none
  std::string error_message;
};

/// The body that asks for `objects`; `git_ref` ("refs/heads/main") may be empty.
std::string lfs_batch_request(std::span<const LfsPointer> objects, std::string_view git_ref);

/// Reads an answer; `what` names it in errors. Throws Error.
std::vector<LfsAnswer> parse_lfs_batch(std::string_view json, const std::string& what);

/// The LFS server of a git remote: its URL + "/info/lfs", with ".git" added where it has none.
std::string lfs_url_of(std::string_view remote);

/// Asks one LFS server. Answers are kept until they are used or over, so that a hundred files need
/// one request. One thread at a time.
class LfsClient {
 public:
  /// `url`: of the server, without "/objects/batch".
  LfsClient(std::string url, std::string git_ref, std::optional<Credentials> credentials,
            const HttpOptions& http);

  ~LfsClient();
  LfsClient(const LfsClient&) = delete;
  LfsClient& operator=(const LfsClient&) = delete;

  /// Announces an object that will be asked for.
  void add(const LfsPointer& object);

  /// Where `object` can be fetched now. Every call for the same object asks anew: the last URL did
  /// not serve. Throws Error with the server's reason.
  DownloadUrl locate(const LfsPointer& object, std::stop_token stop);

 private:
  struct Entry;
  void ask(size_t first_idx, std::stop_token stop);
  HttpResponse post(const std::string& body, std::stop_token stop);
  void store(const std::vector<LfsAnswer>& answers);
  size_t index_of(const LfsPointer& object);
  [[noreturn]] void fail(const HttpResponse& response) const;

  std::string url_;
  std::string git_ref_;
  std::optional<Credentials> credentials_;
  bool needs_credentials_ = false;
  size_t max_batch_ = 100;
  HttpClient client_;
  std::vector<Entry> entries_;
};

}  // namespace dsctl::registry
