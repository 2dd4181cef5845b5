#include "commands/serve/api_pull.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "commands/pull_plan.h"
#include "commands/pull_run.h"
#include "commands/serve/json_fields.h"
#include "registry/error.h"
#include "registry/sources/source.h"

namespace dsctl::commands::serve {
namespace {

using registry::DownloadEvent;
using registry::DownloadEventType;

struct PullCall {
  PullRequest request;
  bool stream = true;
};

PullCall parse_pull(const std::string& body) {
  const Json json = parse_body(body);
  const Fields fields(json);
  PullCall call;
  std::string model = fields.text("model").value_or("");
  if (model.empty()) model = fields.text("name").value_or("");
  if (model.empty()) model = fields.required_text("model");
  call.request.model = model;
  call.request.insecure = fields.flag("insecure").value_or(false);
  call.request.revision = fields.text("revision").value_or("");
  call.stream = fields.flag("stream").value_or(true);
  try {
    // Ollama's clients mean by "me/model" a name of Ollama's registry.
    const std::string source = fields.text("source").value_or("");
    const auto ref = registry::RemoteRef::parse(model, source.empty() ? "auto" : source);
    call.request.source = !source.empty() ? source : ref.is_bare ? "ollama" : "auto";
    registry::RemoteRef::parse(model, call.request.source);
  } catch (const registry::Error& error) {
    throw ApiError(400, std::string("invalid model name: ") + error.what(), "model");
  }
  // A path of this machine is nobody's business who only has the port.
  if (call.request.model.starts_with("file:") || call.request.source == "git") {
    throw ApiError(400, "invalid model name: the server pulls from hubs and registries only",
                   "model");
  }
  return call;
}

/// The stream of one pull; also its only line when it is not streamed.
class PullStream {
 public:
  PullStream(std::shared_ptr<Exchange> exchange, bool stream)
      : exchange_(std::move(exchange)), stream_(stream) {}

  void begin() {
    if (stream_) exchange_->begin_stream("application/x-ndjson");
  }
  void line(const Json& object) {
    if (stream_) exchange_->write(dump(object) + "\n");
  }
  void end(const Json& object) {
    if (!stream_) {
      exchange_->respond({.body = dump(object), .headers = {}});
      return;
    }
    line(object);
    exchange_->end_stream();
  }
  void fail(const std::string& message) {
    if (!stream_) {
      exchange_->respond(error_response(ErrorForm::kOllama, ApiError(500, message)));
      return;
    }
    end({{"error", message}});
  }

 private:
  std::shared_ptr<Exchange> exchange_;
  bool stream_;
};

void tell(PullStream& stream, const PullPlan& plan, const DownloadEvent& event) {
  const bool is_progress = event.type == DownloadEventType::kStarted ||
                           event.type == DownloadEventType::kProgress ||
                           event.type == DownloadEventType::kFinished;
  const registry::RemoteFile& file = plan.file(plan.files[event.file_idx]);
  if (!is_progress) {
    if (!event.message.empty()) spdlog::info("pull: {}: {}", file.path, event.message);
    return;
  }
  Json line;
  line["status"] = "pulling " + (file.sha256 ? file.sha256->short_hex() : file.path);
  if (file.sha256) line["digest"] = file.sha256->to_string();
  line["total"] = file.size_bytes;
  if (event.done_bytes > 0) line["completed"] = event.done_bytes;
  stream.line(line);
}

void run_call(const ApiContext& context, const PullCall& call, PullStream& stream,
              std::stop_token stop) {
  try {
    stream.line({{"status", "pulling manifest"}});
    const PullTransfer transfer;
    const PullPlan plan =
        make_pull_plan(call.request, context.registry.root(), transfer.http, stop);
    check_space(plan);
    PullObserver observer;
    observer.on_status = [&stream](std::string_view status) { stream.line({{"status", status}}); };
    observer.on_event = [&](const DownloadEvent& event) { tell(stream, plan, event); };
    run_pull(plan, context.registry, transfer, observer, stop);
    stream.end({{"status", "success"}});
  } catch (const std::exception& error) {
    spdlog::warn("pull of {}: {}", call.request.model, error.what());
    stream.fail(error.what());
  }
}

}  // namespace

bool PullThreads::start(std::function<void(std::stop_source)> work) {
  const std::lock_guard lock(mutex_);
  join_finished();
  if (ending_ || pulls_.size() >= kMaxPulls) return false;
  Pull& pull = pulls_.emplace_back();
  pull.thread = std::thread([this, &pull, work = std::move(work)] {
    work(pull.source);
    const std::lock_guard done(mutex_);
    pull.is_over = true;
  });
  return true;
}

void PullThreads::join_finished() {
  for (auto pull = pulls_.begin(); pull != pulls_.end();) {
    if (!pull->is_over) {
      ++pull;
      continue;
    }
    pull->thread.join();
    pull = pulls_.erase(pull);
  }
}

void PullThreads::stop() {
  std::list<Pull> pulls;
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    pulls.swap(pulls_);  // list nodes stay where they are
  }
  for (Pull& pull : pulls)
    pull.source.request_stop();
  for (Pull& pull : pulls)
    pull.thread.join();
}

void add_ollama_pull(Router& router, const ApiContext& context, PullThreads& threads) {
  router.add("POST", "/api/pull", [&context, &threads](HttpRequest request, auto exchange) {
    const auto call = std::make_shared<PullCall>(parse_pull(request.body));
    const bool started = threads.start([&context, call, exchange](std::stop_source source) {
      exchange->set_on_close([source]() mutable { source.request_stop(); });
      PullStream stream(exchange, call->stream);
      stream.begin();
      run_call(context, *call, stream, source.get_token());
    });
    if (!started) throw ApiError(503, "too many pulls at a time; try again later");
  });
}

}  // namespace dsctl::commands::serve
