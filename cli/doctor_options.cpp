#include <memory>

#include "cli/options.h"
#include "commands/doctor.h"

namespace dsctl::cli {

void add_doctor_command(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<commands::DoctorOptions>();
  CLI::App* command = app.add_subcommand(
      "doctor", "Check this machine: processor, memory, GPUs, model store, server, hubs");
  command->add_flag("--offline", options->offline, "Ask no hub");
  command->add_flag("--json", options->json, "For programs: a list of findings");
  command->callback([options, &invocation] {
    invocation.run = [options, &invocation] {
      return commands::doctor(*options, invocation.settings, *invocation.console);
    };
  });
}

}  // namespace dsctl::cli
