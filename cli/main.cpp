// The program: parse, run, and the only catch-all. Exit codes: 0 ok, 1 failure, 2 usage, 130
// interrupted.
#include <exception>
#include <string>

#include "cli/options.h"
#include "cli/terminal.h"

namespace {

/// CLI11 only misses a sub-command where one is misspelt; a person wants to hear which word it was.
std::string usage_error(const CLI::ParseError& error, const CLI::App& app,
                        const std::string& first) {
  if (first.empty() || first.front() == '-') return error.what();
  const auto named =
      app.get_subcommands([&](const CLI::App* command) { return command->check_name(first); });
  if (named.empty()) return "unknown command '" + first + "'";
  return error.what();
}

}  // namespace

int main(int argc, char** argv) {
  const auto console = dsctl::cli::make_terminal();
  try {
    dsctl::cli::Invocation invocation;
    invocation.console = console.get();
    invocation.settings = dsctl::cli::default_settings();
    CLI::App app("Takes a large language model from a hub to a served endpoint on one machine.",
                 "dsctl");
    dsctl::cli::add_commands(app, invocation);
    try {
      app.parse(argc, argv);
    } catch (const CLI::Success& wanted_help) {
      return app.exit(wanted_help);
    } catch (const CLI::ParseError& error) {
      console->note("error: " + usage_error(error, app, argc > 1 ? argv[1] : "") +
                    "\nRun with --help for the usage.");
      return 2;
    }
    return invocation.run();
  } catch (const std::exception& error) {
    console->note(std::string("error: ") + error.what());
    return console->interrupted() ? 130 : 1;
  }
}
