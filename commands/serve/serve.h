// `dsctl serve`: the server, from settings to the last connection.
#pragma once

#include <string>
#include <vector>

#include "commands/console.h"
#include "commands/settings.h"

namespace dsctl::commands {

struct ServeOptions {
  std::vector<std::string> origins;  // more CORS origins: "https://chat.example.org"
  std::vector<std::string> loras;    // FILE[=SCALE], applied to every model besides its own
  int max_queue = 512;               // waiting requests of a model before 503
  bool quiet = false;                // log only warnings
};

/// Serves until SIGTERM or SIGINT, then lets requests finish for some seconds. Returns the exit
/// code. Throws Error when it can't listen.
int run_server(const ServeOptions& options, const Settings& settings, Console& console);

/// The hidden command that a server starts for each model: an engine that talks over descriptor
/// `fd`. Returns the exit code.
int run_engine_process(int fd);

}  // namespace dsctl::commands
