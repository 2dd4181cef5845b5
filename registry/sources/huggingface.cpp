#include "registry/sources/huggingface.h"

#include <algorithm>
#include <filesystem>

#include "registry/error.h"
#include "registry/file_io.h"
#include "registry/request_target.h"
#include "registry/sources/json_reader.h"
#include "registry/sources/remote_path.h"
#include "registry/sources/remote_url.h"
#include "registry/sources/signed_url.h"
#include "registry/sources/variants.h"
#include "registry/url.h"

namespace dsctl::registry {
namespace {

constexpr int kMaxPages = 1000;
constexpr int kMaxRenames = 5;

bool is_commit(std::string_view text) {
  return text.size() == 40 && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

/// What all requests to one repository share.
struct Hub {
  explicit Hub(const HttpOptions& http) : client(http) {}

  HttpClient client;
  std::string endpoint;
  std::string repo;
  std::string revision;
  std::string token;
  std::stop_token stop;

  HttpRequest request(const std::string& url, std::string method = "GET") const {
    HttpRequest request;
    request.method = std::move(method);
    request.url = url;
    request.headers = {"Accept-Encoding: identity"};
    if (!token.empty()) request.headers.push_back("Authorization: Bearer " + token);
    return request;
  }

  std::string page() const { return endpoint + "/" + repo; }
};

[[noreturn]] void fail(const Hub& hub, const HttpResponse& response) {
  const auto header = [&](std::string_view name) {
    return std::string(response.header(name).value_or(""));
  };
  const std::string code = header("x-error-code");
  const std::string text = printable_text(header("x-error-message"));
  const std::string where = hub.page();
  const bool has_token = !hub.token.empty();
  if (code == "GatedRepo") {
    throw Error(where + ": is gated: accept its licence on that page" +
                (has_token ? " with the account of your token" : ", then set HF_TOKEN"));
  }
  if (code == "RevisionNotFound") {
    throw Error(where + ": has no revision \"" + hub.revision + "\"");
  }
  if (code == "EntryNotFound") throw Error(printable_url(response.url) + ": there is no such file");
  if (code == "DisabledRepo")
    throw Error(where + ": is disabled" + (text.empty() ? "" : ": " + text));
  if (code == "RepoNotFound" || response.status == 401 || response.status == 404) {
    throw Error(where + ": not found" +
                (has_token ? ", or your token has no access to it"
                           : ", or it is private: set HF_TOKEN to a token that may read it"));
  }
  if (response.status == 403) {
    throw Error(where + ": access refused" + (text.empty() ? "" : ": " + text) +
                (has_token ? "" : "; set HF_TOKEN to a token that may read it"));
  }
  if (response.status == 429) {
    throw Error(where + ": too many requests for now" +
                (has_token ? "" : "; a token in HF_TOKEN raises the limit"));
  }
  throw Error(printable_url(response.url) + ": status " + std::to_string(response.status) +
              (text.empty() ? "" : ": " + text));
}

HttpResponse get(Hub& hub, const std::string& url) {
  HttpResponse response = hub.client.send(hub.request(url), hub.stop);
  if (response.status != 200) fail(hub, response);
  return response;
}

/// Asks where a file's bytes are. The answer is a redirect to a signed URL that needs no token; a
/// renamed repository redirects within the hub first; a small file is at the hub itself.
DownloadUrl locate(Hub& hub, const std::string& path) {
  std::string url = hub.endpoint + "/" + hub.repo + "/resolve/" + percent_encode(hub.revision) +
                    "/" + percent_encode(path, "/");
  for (int i = 0; i < kMaxRenames; ++i) {
    HttpRequest request = hub.request(url, "HEAD");
    request.max_redirects = 0;
    const HttpResponse response = hub.client.send(request, hub.stop);
    if (response.status == 200) {
      request.headers.erase(request.headers.begin());
      return {url, request.headers, 0};
    }
    const auto location = response.header("location");
    if (response.status < 300 || response.status > 399 || !location) fail(hub, response);
    const RequestTarget from = RequestTarget::of(url, request.headers);
    const RequestTarget to = from.redirected(*location, !is_private_host(from.origin.host));
    if (to.origin != from.origin) return signed_download_url(to.url, {});
    url = to.url;
  }
  throw Error(printable_url(url) + ": more than " + std::to_string(kMaxRenames) + " redirects");
}

class HuggingFace final : public Source {
 public:
  explicit HuggingFace(const HttpOptions& http) : http_(http) {}

  Resolved resolve(const RemoteRef& ref, std::stop_token stop) override {
    const auto hub = std::make_shared<Hub>(http_);
    hub->endpoint = ref.endpoint;
    hub->repo = ref.repo;
    hub->revision = ref.revision.empty() ? "main" : ref.revision;
    hub->token = hf_token();
    hub->stop = stop;
    const std::string api = hub->endpoint + "/api/models/" + hub->repo;
    const std::string info_url = api + "/revision/" + percent_encode(hub->revision);
    const HfModelInfo info = parse_hf_model_info(get(*hub, info_url).body, printable_url(info_url));
    if (info.is_disabled) throw Error(hub->page() + ": is disabled");
    hub->revision = info.commit;  // from here on one state of the repository, whoever pushes to it
    Resolved resolved;
    resolved.ref = ref;
    resolved.revision = info.commit;
    resolved.files = list(*hub, api + "/tree/" + info.commit + "?recursive=true");
    for (RemoteFile& file : resolved.files)
      file.locate = [hub, path = file.path] { return locate(*hub, path); };
    GroupedFiles grouped = group_files(resolved.files);
    resolved.variants = std::move(grouped.variants);
    resolved.projector_idxs = std::move(grouped.projector_idxs);
    return resolved;
  }

 private:
  static std::vector<RemoteFile> list(Hub& hub, const std::string& first_page) {
    std::vector<RemoteFile> files;
    const std::string base = first_page.substr(0, first_page.find('?'));
    std::string url = first_page;
    for (int page = 0; page < kMaxPages; ++page) {
      const HttpResponse response = get(hub, url);
      std::vector<RemoteFile> more = parse_hf_tree(response.body, printable_url(url));
      if (files.size() + more.size() > kMaxRemoteFiles) break;
      std::move(more.begin(), more.end(), std::back_inserter(files));
      const auto link = response.header("link");
      // Only the query is taken: a mirror passes on links to the hub that it stands for.
      const std::optional<std::string> query = link ? next_page_query(*link) : std::nullopt;
      if (!query) return files;
      url = base + "?" + *query;
    }
    throw Error(hub.page() + ": lists more than " + std::to_string(kMaxRemoteFiles) + " files");
  }

  HttpOptions http_;
};

}  // namespace

HfModelInfo parse_hf_model_info(std::string_view json, const std::string& what) {
  const Json root = parse_json(json, what);
  require_object(root, what);
  HfModelInfo info;
  info.commit = json_text(root, "sha", what).value_or("");
  if (!is_commit(info.commit)) {
    throw Error(what + ": sha: \"" + printable_text(info.commit) +
                "\", expected a commit of 40 hexadecimal digits");
  }
  if (const auto gated = root.find("gated"); gated != root.end()) {
    info.is_gated = gated->is_string() || (gated->is_boolean() && gated->get<bool>());
  }
  info.is_disabled = json_flag(root, "disabled", what).value_or(false);
  return info;
}

std::vector<RemoteFile> parse_hf_tree(std::string_view json, const std::string& what) {
  const Json root = parse_json(json, what);
  if (!root.is_array()) throw Error(what + ": expected a list of files");
  if (root.size() > kMaxRemoteFiles) throw Error(what + ": lists too many files");
  std::vector<RemoteFile> files;
  for (const Json& item : root) {
    require_object(item, what);
    if (json_text(item, "type", what).value_or("") != "file") continue;
    RemoteFile file;
    file.path = checked_remote_path(json_text(item, "path", what).value_or(""), what);
    const std::string where = what + ": " + file.path;
    file.size_bytes = json_size(item, "size", where).value_or(-1);
    if (const Json* lfs = json_object(item, "lfs", where)) {
      file.sha256 = json_sha256(*lfs, "oid", where);
      file.size_bytes = json_size(*lfs, "size", where).value_or(file.size_bytes);
      if (!file.sha256) throw Error(where + ": lfs: oid is missing");
    } else if (std::string oid = json_text(item, "oid", where).value_or(""); is_commit(oid)) {
      file.git_sha1 = std::move(oid);
    }
    if (file.size_bytes < 0) throw Error(where + ": size is missing");
    files.push_back(std::move(file));
  }
  return files;
}

std::optional<std::string> next_page_query(std::string_view link_header) {
  for (std::string_view rest = link_header; !rest.empty();) {
    const size_t begin = rest.find('<');
    const size_t end = rest.find('>', begin);
    if (begin == std::string_view::npos || end == std::string_view::npos) return std::nullopt;
    const std::string_view url = rest.substr(begin + 1, end - begin - 1);
    rest.remove_prefix(end + 1);
    const std::string_view parameters = rest.substr(0, rest.find(','));
    rest.remove_prefix(parameters.size());
    if (parameters.find("rel=\"next\"") == std::string_view::npos) continue;
    const size_t question = url.find('?');
    const bool fits =
        question != std::string_view::npos && url.size() < 8192 &&
        std::all_of(url.begin(), url.end(), [](char c) { return c > ' ' && c < 0x7f && c != '#'; });
    if (!fits) return std::nullopt;
    return std::string(url.substr(question + 1));
  }
  return std::nullopt;
}

std::string hf_token() {
  namespace fs = std::filesystem;
  std::string token = environment_value("HF_TOKEN");
  if (token.empty()) {
    fs::path path = environment_value("HF_TOKEN_PATH");
    const std::string home = environment_value("HOME");
    const std::string hf_home = environment_value("HF_HOME");
    if (path.empty() && !hf_home.empty()) path = fs::path(hf_home) / "token";
    if (path.empty() && !home.empty()) path = fs::path(home) / ".cache/huggingface/token";
    if (!path.empty()) token = read_small_file(path, 4096).value_or("");
  }
  while (!token.empty() && static_cast<unsigned char>(token.back()) <= ' ')
    token.pop_back();
  if (!header_line("Authorization", token)) {
    throw Error("the Hugging Face token holds characters that no token has");
  }
  return token;
}

std::unique_ptr<Source> make_hugging_face(const HttpOptions& http) {
  return std::make_unique<HuggingFace>(http);
}

}  // namespace dsctl::registry
