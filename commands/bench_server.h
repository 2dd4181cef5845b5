// `dsctl bench --server URL`: what many clients at a time get from a server that speaks OpenAI's or
// Ollama's API.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "commands/bench_load.h"
#include "commands/bench_report.h"
#include "commands/console.h"

namespace dsctl::commands {

struct BenchServerOptions {
  std::string url;    // "http://127.0.0.1:11434"
  std::string model;  // empty: the first that the server lists
  ServerApi api = ServerApi::kOpenai;
  std::vector<int> concurrency{1};
  int n_prompts = 0;  // requests of each level; 0: four for each client, at least 16
  int input_len = 512;
  int output_len = 128;
  double request_rate = 0;  // a second, at random moments; 0: each client as fast as it can
  uint64_t seed = 1;
  ReportForm form = ReportForm::kMarkdown;
};

/// Host and port of a URL. Throws Error when it is none, or needs TLS.
struct ServerAddress {
  std::string host;
  int port = 0;
};
ServerAddress parse_server_url(const std::string& url);

/// Measures and prints. Returns the exit code: 1 when no request at all was answered, 130 when
/// interrupted. Throws Error when the server can't be used.
int bench_server(const BenchServerOptions& options, Console& console);

}  // namespace dsctl::commands
