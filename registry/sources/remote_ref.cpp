// RemoteRef: the ways to name a model somewhere else.
#include <algorithm>
#include <vector>

#include "registry/error.h"
#include "registry/sources/remote_path.h"
#include "registry/sources/remote_url.h"
#include "registry/sources/source.h"
#include "registry/url.h"

namespace dsctl::registry {
namespace {

using Kind = RemoteRef::Kind;

constexpr std::string_view kHuggingFace = "https://huggingface.co";
constexpr std::string_view kModelScope = "https://www.modelscope.cn";
constexpr size_t kMaxTextBytes = 4096;

[[noreturn]] void fail(std::string_view text, const std::string& why) {
  throw Error("\"" + printable_text(text) + "\": " + why);
}

std::vector<std::string_view> split_path(std::string_view path) {
  std::vector<std::string_view> parts;
  while (!path.empty()) {
    const size_t slash = std::min(path.find('/'), path.size());
    if (slash > 0) parts.push_back(path.substr(0, slash));
    path.remove_prefix(std::min(slash + 1, path.size()));
  }
  return parts;
}

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return result;
}

/// An endpoint of the environment: a URL, or a host alone.
std::string endpoint_from(const char* variable) {
  std::string value = environment_value(variable);
  if (value.empty()) return "";
  if (value.find("://") == std::string::npos) value = "https://" + value;
  while (value.ends_with('/'))
    value.pop_back();
  const std::optional<Url> url = Url::parse(value);
  if (!url || (url->scheme != "https" && url->scheme != "http") || !url->query.empty() ||
      !url->user.empty()) {
    throw Error(std::string(variable) + ": \"" + printable_text(value) +
                "\", expected a URL like https://huggingface.co");
  }
  return value;
}

std::string hugging_face_endpoint() {
  const std::string own = endpoint_from("HF_ENDPOINT");
  return own.empty() ? std::string(kHuggingFace) : own;
}

std::string modelscope_endpoint() {
  std::string own = endpoint_from("MODELSCOPE_ENDPOINT");
  if (own.empty()) own = endpoint_from("MODELSCOPE_DOMAIN");
  return own.empty() ? std::string(kModelScope) : own;
}

bool is_hugging_face(const std::string& host_port) {
  return host_port == "hf.co" || host_port == "huggingface.co" || host_port == "www.huggingface.co";
}

bool is_modelscope(const std::string& host_port) {
  return host_port == "modelscope.cn" || host_port == "www.modelscope.cn";
}

/// True when `host_port` is where the endpoint of the environment points.
bool is_at(const std::string& host_port, const std::string& endpoint) {
  const std::optional<Url> url = Url::parse(endpoint);
  return url && url->host_port() == host_port;
}

bool is_ollama(const std::string& host_port) {
  return host_port == "ollama.com" || host_port == "registry.ollama.ai";
}

/// "hf.co/..." or a page's URL: which hub is at a host.
std::optional<RemoteRef> hub_at(const std::string& host_port) {
  RemoteRef ref;
  ref.kind = Kind::kHuggingFace;
  ref.endpoint = hugging_face_endpoint();
  if (is_hugging_face(host_port) || is_at(host_port, ref.endpoint)) return ref;
  if (host_port == "hf-mirror.com") {
    ref.endpoint = "https://hf-mirror.com";
    return ref;
  }
  ref.kind = Kind::kModelScope;
  ref.endpoint = modelscope_endpoint();
  if (is_modelscope(host_port) || is_at(host_port, ref.endpoint)) return ref;
  if (host_port == "modelscope.ai" || host_port == "www.modelscope.ai") {
    ref.endpoint = "https://www.modelscope.ai";
    return ref;
  }
  return std::nullopt;
}

bool is_repo_part(std::string_view part) {
  return !part.empty() && part.size() <= 96 && part != "." && part != ".." &&
         std::all_of(part.begin(), part.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '-' || c == '_' || c == '.';
         });
}

void set_repo(RemoteRef& ref, std::string_view owner, std::string_view name,
              std::string_view text) {
  if (!is_repo_part(owner) || !is_repo_part(name)) {
    fail(text, "expected ORG/REPO of letters, digits, '-', '_' and '.'");
  }
  ref.repo = std::string(owner) + "/" + std::string(name);
}

void set_revision(RemoteRef& ref, std::string_view revision, std::string_view text) {
  const bool fits = !revision.empty() && revision.size() <= 255 && revision[0] != '-' &&
                    revision.find("..") == std::string_view::npos &&
                    std::all_of(revision.begin(), revision.end(), [](char c) {
                      return c > ' ' && c < 0x7f && c != '\\' && c != '^' && c != ':' && c != '~' &&
                             c != '?' && c != '*' && c != '[';
                    });
  if (!fits) fail(text, "\"" + printable_text(revision) + "\" is no revision");
  ref.revision = revision;
}

void set_path(RemoteRef& ref, const std::vector<std::string_view>& parts, size_t begin,
              std::string_view text) {
  std::string path;
  for (size_t i = begin; i < parts.size(); ++i)
    path += (path.empty() ? "" : "/") + percent_decoded(parts[i]);
  if (!path.empty()) ref.path = checked_remote_path(path, printable_text(text));
}

/// What follows ORG/REPO in the URL of a hub's page: parts[begin] is the first word.
void read_page(RemoteRef& ref, const std::vector<std::string_view>& parts, size_t begin,
               std::string_view text) {
  if (begin >= parts.size()) return;
  std::string_view word = parts[begin];
  if (word == "files" || word == "summary") return;
  if (word == "file" && begin + 1 < parts.size() && parts[begin + 1] == "view") {
    ++begin;  // ModelScope: /file/view/REV/PATH
    word = "blob";
  }
  if (word != "tree" && word != "blob" && word != "resolve" && word != "raw") {
    fail(text, "\"" + printable_text(word) + "\" after ORG/REPO, expected tree, blob or resolve");
  }
  if (begin + 1 >= parts.size()) return;
  set_revision(ref, percent_decoded(parts[begin + 1]), text);
  set_path(ref, parts, begin + 2, text);
}

void refuse_data_sets(std::string_view first, std::string_view text) {
  if (first == "datasets" || first == "spaces" || first == "collections" || first == "studios") {
    fail(text, "is in " + std::string(first) + ", expected a model");
  }
}

/// Splits ":SELECTOR" off the last part.
std::string take_selector(std::string_view& text) {
  const size_t colon = text.rfind(':');
  const size_t slash = text.rfind('/');
  if (colon == std::string_view::npos || (slash != std::string_view::npos && colon < slash)) {
    return "";
  }
  const std::string selector(text.substr(colon + 1));
  const bool fits = !selector.empty() && selector.size() <= 255 &&
                    std::all_of(selector.begin(), selector.end(),
                                [](char c) { return c > ' ' && c != 0x7f && c != '\\'; });
  if (!fits) fail(text, "expected a quant or a file's name after ':'");
  text = text.substr(0, colon);
  return selector;
}

/// ORG/REPO and what follows, on a hub.
RemoteRef on_hub(RemoteRef ref, std::string_view path, std::string_view text) {
  ref.selector = take_selector(path);
  std::vector<std::string_view> parts = split_path(path);
  if (!parts.empty()) refuse_data_sets(parts[0], text);
  if (!parts.empty() && parts[0] == "models" && ref.kind == Kind::kModelScope) {
    parts.erase(parts.begin());
  }
  if (parts.size() < 2) fail(text, "expected ORG/REPO");
  std::string_view name = parts[1];
  if (name.ends_with(".git")) name.remove_suffix(4);
  set_repo(ref, parts[0], name, text);
  read_page(ref, parts, 2, text);
  return ref;
}

RemoteRef on_ollama(std::string_view text) {
  RemoteRef ref;
  ref.kind = Kind::kOllama;
  ModelName name = ModelName::parse(text);
  if (lower(name.host) == "ollama.com") name.host = ModelName::kDefaultHost;
  ref.repo = name.host + "/" + name.owner + "/" + name.model;
  ref.selector = name.tag;
  const size_t scheme = text.find("://");
  const std::optional<Url> host = Url::parse("https://" + name.host);
  if (!host) fail(text, "\"" + name.host + "\" is no host");
  const bool plain = scheme == std::string_view::npos ? is_loopback_host(host->host)
                                                      : lower(text.substr(0, scheme)) == "http";
  ref.endpoint = (plain ? "http://" : "https://") + name.host;
  return ref;
}

RemoteRef on_git(std::string_view text) {
  RemoteRef ref;
  ref.kind = Kind::kGit;
  std::string_view rest = text;
  // Of a URL only what follows the host can have a selector.
  const size_t host_end = rest.find('/', rest.find("://") + 3);
  if (host_end != std::string_view::npos) ref.selector = take_selector(rest);
  while (rest.ends_with('/'))
    rest.remove_suffix(1);
  const std::optional<Url> url = Url::parse(rest);
  if (!url) fail(text, "is no URL of a git repository");
  if (url->scheme == "ssh" || url->scheme == "git") {
    fail(text,
         "git over " + url->scheme + " is not supported, give https://" + url->host + url->path);
  }
  if (url->scheme != "https" && url->scheme != "http" && url->scheme != "file") {
    fail(text, "scheme \"" + url->scheme + "\", expected https, http or file");
  }
  if (url->path.size() < 2) fail(text, "expected the path of a repository after the host");
  if (!url->query.empty()) fail(text, "the URL of a git repository has no '?'");
  ref.repo = rest;
  ref.endpoint = url->origin();
  return ref;
}

RemoteRef from_url(std::string_view text, std::string_view source) {
  const std::optional<Url> url = Url::parse(text);
  if (!url) fail(text, "is no URL");
  if (source == "git" || (url->scheme != "https" && url->scheme != "http")) return on_git(text);
  const std::string host_port = url->host_port();
  if (source == "ollama" || (source == "auto" && is_ollama(host_port))) {
    return on_ollama(url->origin() + url->path);
  }
  std::optional<RemoteRef> hub = hub_at(host_port);
  if (!hub && (source == "hf" || source == "modelscope")) {
    hub = RemoteRef();
    hub->kind = source == "hf" ? Kind::kHuggingFace : Kind::kModelScope;
    hub->endpoint = url->origin();
  }
  return hub ? on_hub(*hub, url->path, text) : on_git(text);
}

RemoteRef bare_on_hub(Kind kind, std::string_view text) {
  RemoteRef ref;
  ref.kind = kind;
  ref.endpoint = kind == Kind::kHuggingFace ? hugging_face_endpoint() : modelscope_endpoint();
  return on_hub(std::move(ref), text, text);
}

}  // namespace

RemoteRef RemoteRef::parse(std::string_view text, std::string_view source) {
  if (source == "huggingface") source = "hf";
  if (source != "auto" && source != "hf" && source != "modelscope" && source != "ollama" &&
      source != "git") {
    throw Error("source \"" + printable_text(source) +
                "\", expected auto, hf, modelscope, ollama or git");
  }
  if (text.empty()) throw Error("no model is named");
  if (text.size() > kMaxTextBytes) throw Error("a model's name has more than 4096 bytes");
  for (const char c : text) {
    if (static_cast<unsigned char>(c) <= ' ' || c == 0x7f) {
      fail(text, "a name can't have spaces or control characters");
    }
  }
  if (text.find("://") != std::string_view::npos) return from_url(text, source);
  if (text.starts_with("git@")) {
    std::string url(text.substr(4));
    std::replace(url.begin(), url.end(), ':', '/');
    fail(text, "git over ssh is not supported, give https://" + url);
  }
  if (source == "git") {
    if (!text.starts_with('/')) fail(text, "expected a URL, or a path that begins with '/'");
    return on_git("file://" + std::string(text));
  }
  if (source == "ollama") return on_ollama(text);
  const size_t slash = text.find('/');
  const std::string host = slash == std::string_view::npos ? "" : lower(text.substr(0, slash));
  if (std::optional<RemoteRef> hub = hub_at(host)) {
    RemoteRef ref = on_hub(*std::move(hub), text.substr(slash + 1), text);
    ref.is_ollama_style = true;
    return ref;
  }
  if (source == "hf") return bare_on_hub(Kind::kHuggingFace, text);
  if (source == "modelscope") return bare_on_hub(Kind::kModelScope, text);
  if (std::count(text.begin(), text.end(), '/') != 1) return on_ollama(text);
  RemoteRef ref = bare_on_hub(Kind::kHuggingFace, text);
  ref.is_bare = true;
  return ref;
}

ModelName RemoteRef::model_name(std::string_view label) const {
  if (kind == Kind::kOllama) return ModelName::parse(repo + ":" + selector);
  const auto fitted = [](std::string_view text, bool dots) {
    std::string part;
    for (const char c : text.substr(0, 80)) {
      const bool fits = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                        (c >= '0' && c <= '9') || c == '-' || c == '_' || (c == '.' && dots);
      part += fits ? c : '-';
    }
    if (!part.empty() && (part[0] == '-' || part[0] == '.')) part[0] = '_';
    return part.empty() ? std::string("_") : part;
  };
  ModelName name;
  const std::optional<Url> url = Url::parse(repo);  // of a git remote; outlives `parts`
  std::vector<std::string_view> parts = split_path(repo);
  if (kind == Kind::kGit) {
    parts = split_path(url->path);
    name.host = url->host.empty() ? "localhost" : url->host_port();
  } else {
    name.host = kind == Kind::kHuggingFace ? "hf.co" : "modelscope.cn";
  }
  std::string_view model = parts.back();
  if (model.ends_with(".git")) model.remove_suffix(4);
  name.model = fitted(model, true);
  name.owner = parts.size() > 1 ? fitted(parts[parts.size() - 2], false)
                                : std::string(ModelName::kDefaultOwner);
  name.tag = label.empty() ? std::string(ModelName::kDefaultTag) : fitted(label, true);
  return ModelName::parse(name.full_form());
}

std::string RemoteRef::display() const {
  switch (kind) {
    case Kind::kOllama:
      return ModelName::parse(repo + ":" + selector).short_form();
    case Kind::kHuggingFace:
      return "hf.co/" + repo;
    case Kind::kModelScope:
      return "modelscope.cn/" + repo;
    case Kind::kGit:
      return printable_url(repo);
  }
  return "";
}

}  // namespace dsctl::registry
