#include "registry/sources/ollama.h"

#include <ctime>
#include <filesystem>
#include <set>

#include "registry/error.h"
#include "registry/file_io.h"
#include "registry/request_target.h"
#include "registry/sources/auth_challenge.h"
#include "registry/sources/json_reader.h"
#include "registry/sources/remote_path.h"
#include "registry/sources/remote_url.h"
#include "registry/sources/signed_url.h"
#include "registry/url.h"

namespace dsctl::registry {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxTokenBytes = 64 << 10;

/// One model of one registry, and the token for it.
class Repository {
 public:
  Repository(const RemoteRef& ref, const HttpOptions& http, std::stop_token stop)
      : client_(http),
        name_(ModelName::parse(ref.repo + ":" + ref.selector)),
        base_(ref.endpoint + "/v2/" + name_.owner + "/" + name_.model),
        stop_(std::move(stop)) {}

  const ModelName& name() const { return name_; }

  std::string manifest() {
    HttpRequest request;
    request.url = base_ + "/manifests/" + name_.tag;
    request.headers = {"Accept: " + std::string(media_type::kManifest)};
    request.max_body_bytes = Manifest::kMaxBytes;
    const HttpResponse response = send(request);
    if (response.status == 404) {
      throw Error("pull model manifest: " + name_.short_form() + ": file does not exist at " +
                  printable_url(base_));
    }
    if (response.status != 200) fail("pull model manifest", response);
    return response.body;
  }

  /// A redirect to storage is followed here, once, so that the parts go there directly.
  DownloadUrl locate(const Digest& digest) {
    HttpRequest request;
    request.url = base_ + "/blobs/" + digest.to_string();
    request.max_redirects = 0;
    request.range = {0, 0};
    request.max_body_bytes = 64 << 10;
    const HttpResponse response = send(request);
    const std::vector<std::string> own = headers();
    if (response.status == 200 || response.status == 206 || response.status == 416) {
      return {request.url, own, 0};
    }
    const auto location = response.header("location");
    if (!is_redirect_status(response.status) || !location) fail("pull blob", response);
    const RequestTarget from = RequestTarget::of(request.url, own);
    const RequestTarget to = from.redirected(*location, !is_private_host(from.origin.host));
    return signed_download_url(to.url, to.origin == from.origin ? own : std::vector<std::string>());
  }

 private:
  std::vector<std::string> headers() const {
    if (token_.empty()) return {};
    return {"Authorization: Bearer " + token_};
  }

  /// Sends, and once more with a token when that is what is missing.
  HttpResponse send(HttpRequest request) {
    const std::vector<std::string> plain = request.headers;
    const auto with_token = [&] {
      request.headers = plain;
      for (const std::string& line : headers())
        request.headers.push_back(line);
      return client_.send(request, stop_);
    };
    HttpResponse response = with_token();
    if (response.status != 401) return response;
    const auto header = response.header("www-authenticate");
    const auto challenge = header ? AuthChallenge::parse(*header) : std::nullopt;
    if (!challenge) fail("pull", response);
    token_ = ask_for_token(*challenge);
    return with_token();
  }

  std::string ask_for_token(const AuthChallenge& challenge) {
    const std::optional<Url> realm = Url::parse(challenge.realm);
    const std::optional<Url> own = Url::parse(base_);
    // A registry that could name any host would be sent a signature made for another one.
    if (realm->host != own->host || (own->scheme == "https" && realm->scheme != "https")) {
      throw Error(printable_url(base_) + ": asks for a token of " + realm->origin() +
                  ", which is another host; refused");
    }
    HttpRequest request;
    request.url = challenge.token_url(random_nonce(), static_cast<int64_t>(std::time(nullptr)));
    request.max_redirects = 0;
    request.max_body_bytes = kMaxTokenBytes;
    if (const auto key = signing_key()) {
      request.headers.push_back("Authorization: " + key->authorize(request.url));
    }
    const HttpResponse response = client_.send(request, stop_);
    if (response.status != 200) fail("ask for a token", response);
    const std::string what = printable_url(challenge.realm);
    const Json root = parse_json(response.body, what);
    require_object(root, what);
    std::string token = json_text(root, "token", what).value_or("");
    if (token.empty()) token = json_text(root, "access_token", what).value_or("");
    if (token.empty() || !header_line("Authorization", token)) {
      throw Error(what + ": the answer holds no token");
    }
    return token;
  }

  /// The user's key of Ollama, where there is one: private models need it.
  static std::optional<SigningKey> signing_key() {
    const std::string home = environment_value("HOME");
    if (home.empty()) return std::nullopt;
    const fs::path path = fs::path(home) / ".ollama" / "id_ed25519";
    const std::optional<std::string> text = read_small_file(path, 64 << 10);
    if (!text) return std::nullopt;
    try {
      return SigningKey::parse(*text);
    } catch (const Error& error) {
      throw Error(path.string() + ": " + error.what());
    }
  }

  [[noreturn]] void fail(const std::string& what, const HttpResponse& response) const {
    const Json root = Json::parse(response.body, nullptr, /*allow_exceptions=*/false);
    std::string message;
    if (root.is_object() && root.contains("errors") && root["errors"].is_array() &&
        !root["errors"].empty() && root["errors"][0].is_object()) {
      const Json text = root["errors"][0].value("message", Json());
      if (text.is_string()) message = ": " + printable_text(text.get<std::string>());
    }
    const bool refused = response.status == 401 || response.status == 403;
    throw Error(what + ": " + name_.short_form() + ": status " + std::to_string(response.status) +
                message +
                (refused ? " (not found, or private: it needs the key of its account in "
                           "~/.ollama/id_ed25519)"
                         : "") +
                " at " + printable_url(base_));
  }

  HttpClient client_;
  ModelName name_;
  std::string base_;
  std::stop_token stop_;
  std::string token_;
};

/// A manifest that can be stored: layers of known size, each blob with one size only.
void check_manifest(const Manifest& manifest, const std::string& what) {
  if (manifest.layers.empty()) throw Error(what + ": the manifest has no layers");
  for (const Layer& layer : manifest.layers) {
    if (!layer.media_type.starts_with("application/vnd.ollama.image.")) {
      throw Error(what + ": a layer is of type \"" + printable_text(layer.media_type) +
                  "\", expected application/vnd.ollama.image.*");
    }
    if (layer.size_bytes > kMaxRemoteFileBytes) throw Error(what + ": a layer is too large");
  }
}

class Ollama final : public Source {
 public:
  explicit Ollama(const HttpOptions& http) : http_(http) {}

  Resolved resolve(const RemoteRef& ref, std::stop_token stop) override {
    const auto repository = std::make_shared<Repository>(ref, http_, std::move(stop));
    const std::string what = repository->name().short_form();
    Resolved resolved;
    resolved.ref = ref;
    resolved.manifest_json = repository->manifest();
    try {
      resolved.manifest = Manifest::parse(resolved.manifest_json);
    } catch (const Error& error) {
      throw Error(what + ": " + error.what());
    }
    check_manifest(*resolved.manifest, what);
    std::vector<Layer> layers = resolved.manifest->layers;
    layers.push_back(resolved.manifest->config);
    std::set<Digest> seen;
    for (const Layer& layer : layers) {
      if (!seen.insert(layer.digest).second) continue;
      RemoteFile file;
      file.path = layer.digest.file_name();
      file.size_bytes = layer.size_bytes;
      file.sha256 = layer.digest;
      file.locate = [repository, digest = layer.digest] { return repository->locate(digest); };
      resolved.files.push_back(std::move(file));
    }
    return resolved;
  }

 private:
  HttpOptions http_;
};

}  // namespace

std::unique_ptr<Source> make_ollama(const HttpOptions& http) {
  return std::make_unique<Ollama>(http);
}

}  // namespace dsctl::registry
