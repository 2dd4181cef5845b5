// The command line as plain structs: CLI11 appears in this folder only. One file <verb>_options.cpp
// a command; it declares the flags and leaves in `Invocation` what to run.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

#include "commands/console.h"
#include "commands/settings.h"

namespace dsctl::cli {

/// What the command line asked for. `run` is set by the sub-command that was chosen and returns the
/// exit code.
struct Invocation {
  commands::Settings settings;
  commands::Console* console = nullptr;
  std::function<int()> run;
};

/// Declares every command on `app`. `invocation` must outlive `app`'s parse.
void add_commands(CLI::App& app, Invocation& invocation);

/// Settings from the environment and config.yaml, weaker than flags. The store is the first of
/// DSCTL_MODELS, `models` in config.yaml, OLLAMA_MODELS, and a directory of our own. Throws
/// commands::Error naming the file, line and key of a bad value.
commands::Settings default_settings();

void add_bench_command(CLI::App& app, Invocation& invocation);
void add_imatrix_command(CLI::App& app, Invocation& invocation);
void add_perplexity_command(CLI::App& app, Invocation& invocation);
void add_quantize_command(CLI::App& app, Invocation& invocation);
void add_show_command(CLI::App& app, Invocation& invocation);
void add_tokenize_command(CLI::App& app, Invocation& invocation);
void add_cp_command(CLI::App& app, Invocation& invocation);
void add_convert_command(CLI::App& app, Invocation& invocation);
void add_create_command(CLI::App& app, Invocation& invocation);
void add_list_command(CLI::App& app, Invocation& invocation);
void add_pull_command(CLI::App& app, Invocation& invocation);
void add_rm_command(CLI::App& app, Invocation& invocation);
void add_plan_command(CLI::App& app, Invocation& invocation);
void add_prune_command(CLI::App& app, Invocation& invocation);
void add_verify_command(CLI::App& app, Invocation& invocation);
void add_export_command(CLI::App& app, Invocation& invocation);
void add_import_command(CLI::App& app, Invocation& invocation);
void add_merge_command(CLI::App& app, Invocation& invocation);
void add_split_command(CLI::App& app, Invocation& invocation);
void add_doctor_command(CLI::App& app, Invocation& invocation);
void add_version_command(CLI::App& app, Invocation& invocation);
void add_run_command(CLI::App& app, Invocation& invocation);
void add_ps_command(CLI::App& app, Invocation& invocation);
void add_stop_command(CLI::App& app, Invocation& invocation);
void add_serve_command(CLI::App& app, Invocation& invocation);
void add_engine_process_command(CLI::App& app, Invocation& invocation);

}  // namespace dsctl::cli
