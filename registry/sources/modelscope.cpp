#include "registry/sources/modelscope.h"

#include <algorithm>

#include "registry/error.h"
#include "registry/request_target.h"
#include "registry/sources/json_reader.h"
#include "registry/sources/remote_path.h"
#include "registry/sources/remote_url.h"
#include "registry/sources/signed_url.h"
#include "registry/sources/variants.h"
#include "registry/url.h"

namespace dsctl::registry {
namespace {

/// What all requests to one repository share.
struct Hub {
  explicit Hub(const HttpOptions& http) : client(http) {}

  HttpClient client;
  std::string endpoint;
  std::string repo;
  std::string revision;
  std::string token;
  std::stop_token stop;

  HttpRequest request(const std::string& url) const {
    HttpRequest request;
    request.url = url;
    request.headers = headers();
    request.headers.push_back("Accept-Encoding: identity");
    return request;
  }
  std::vector<std::string> headers() const {
    if (token.empty()) return {};
    return {"Authorization: Bearer " + token, "Cookie: m_session_id=" + token};
  }
  std::string api() const { return endpoint + "/api/v1/models/" + repo; }
  std::string page() const { return endpoint + "/models/" + repo; }
};

/// The message of an envelope, or nothing.
std::string message_of(const std::string& body) {
  const Json root = Json::parse(body, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) return "";
  const auto found = root.find("Message");
  return found != root.end() && found->is_string() ? printable_text(found->get<std::string>()) : "";
}

[[noreturn]] void fail(const Hub& hub, const HttpResponse& response) {
  const std::string message = message_of(response.body);
  const std::string tail = message.empty() ? "" : " (" + message + ")";
  if (response.status == 404) {
    throw Error(hub.page() + ": there is no such model or revision \"" + hub.revision + "\"" +
                tail);
  }
  if (response.status == 401 || response.status == 403) {
    throw Error(hub.page() + ": access refused" + tail +
                (hub.token.empty() ? "; set MODELSCOPE_API_TOKEN to a token that may read it"
                                   : "; accept its terms on that page with your token's account"));
  }
  throw Error(printable_url(response.url) + ": status " + std::to_string(response.status) + tail);
}

/// The API answers with a redirect to object storage, or with the bytes. One byte is asked for, so
/// that the answer is small either way.
DownloadUrl locate(Hub& hub, const std::string& path) {
  const std::string url = hub.api() + "/repo?Revision=" + percent_encode(hub.revision) +
                          "&FilePath=" + percent_encode(path);
  HttpRequest request = hub.request(url);
  request.max_redirects = 0;
  request.range = {0, 0};
  request.max_body_bytes = 64 << 10;
  const HttpResponse response = hub.client.send(request, hub.stop);
  // 416: an empty file has no first byte.
  if (response.status == 200 || response.status == 206 || response.status == 416) {
    return {url, hub.headers(), 0};
  }
  const auto location = response.header("location");
  if (response.status < 300 || response.status > 399 || !location) fail(hub, response);
  const RequestTarget from = RequestTarget::of(url, hub.headers());
  const RequestTarget to = from.redirected(*location, !is_private_host(from.origin.host));
  return signed_download_url(to.url,
                             to.origin == from.origin ? hub.headers() : std::vector<std::string>());
}

class ModelScope final : public Source {
 public:
  explicit ModelScope(const HttpOptions& http) : http_(http) {}

  Resolved resolve(const RemoteRef& ref, std::stop_token stop) override {
    const auto hub = std::make_shared<Hub>(http_);
    hub->endpoint = ref.endpoint;
    hub->repo = ref.repo;
    hub->revision = ref.revision.empty() ? "master" : ref.revision;
    hub->token = environment_value("MODELSCOPE_API_TOKEN");
    hub->stop = stop;
    if (!header_line("Authorization", hub->token) ||
        hub->token.find_first_of("; ,\"") != std::string::npos) {
      throw Error("MODELSCOPE_API_TOKEN: holds characters that no token has");
    }
    const std::string url =
        hub->api() + "/repo/files?Revision=" + percent_encode(hub->revision) + "&Recursive=True";
    const HttpResponse response = hub->client.send(hub->request(url), stop);
    if (response.status != 200) fail(*hub, response);
    Resolved resolved;
    resolved.ref = ref;
    resolved.revision = hub->revision;
    resolved.files = parse_modelscope_files(response.body, printable_url(url));
    for (RemoteFile& file : resolved.files)
      file.locate = [hub, path = file.path] { return locate(*hub, path); };
    GroupedFiles grouped = group_files(resolved.files);
    resolved.variants = std::move(grouped.variants);
    resolved.projector_idxs = std::move(grouped.projector_idxs);
    return resolved;
  }

 private:
  HttpOptions http_;
};

}  // namespace

std::vector<RemoteFile> parse_modelscope_files(std::string_view json, const std::string& what) {
  const Json root = parse_json(json, what);
  require_object(root, what);
  const auto code = root.find("Code");
  if (code != root.end() && code->is_number_integer() && code->get<int64_t>() != 200) {
    throw Error(what + ": code " + std::to_string(code->get<int64_t>()) + ": " +
                printable_text(json_text(root, "Message", what).value_or("")));
  }
  const Json* data = json_object(root, "Data", what);
  if (!data) throw Error(what + ": Data is missing");
  const Json* list = json_array(*data, "Files", what);
  std::vector<RemoteFile> files;
  if (!list) return files;
  if (list->size() > kMaxRemoteFiles) throw Error(what + ": lists too many files");
  for (const Json& item : *list) {
    require_object(item, what);
    if (json_text(item, "Type", what).value_or("") != "blob") continue;
    RemoteFile file;
    file.path = checked_remote_path(json_text(item, "Path", what).value_or(""), what);
    const std::string where = what + ": " + file.path;
    const std::optional<int64_t> size = json_size(item, "Size", where);
    if (!size) throw Error(where + ": Size is missing");
    file.size_bytes = *size;
    file.sha256 = json_sha256(item, "Sha256", where);
    files.push_back(std::move(file));
  }
  return files;
}

std::unique_ptr<Source> make_modelscope(const HttpOptions& http) {
  return std::make_unique<ModelScope>(http);
}

}  // namespace dsctl::registry
