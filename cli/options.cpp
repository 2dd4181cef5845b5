#include "cli/options.h"

#include "commands/version.h"

namespace dsctl::cli {

void add_commands(CLI::App& app, Invocation& invocation) {
  app.require_subcommand(1);
  app.set_version_flag("-v,--version", commands::version_text());
  add_pull_command(app, invocation);
  add_convert_command(app, invocation);
  add_create_command(app, invocation);
  add_list_command(app, invocation);
  add_cp_command(app, invocation);
  add_rm_command(app, invocation);
  add_show_command(app, invocation);
  add_tokenize_command(app, invocation);
  add_quantize_command(app, invocation);
  add_imatrix_command(app, invocation);
  add_perplexity_command(app, invocation);
  add_bench_command(app, invocation);
  add_run_command(app, invocation);
  add_serve_command(app, invocation);
  add_ps_command(app, invocation);
  add_stop_command(app, invocation);
  add_plan_command(app, invocation);
  add_prune_command(app, invocation);
  add_verify_command(app, invocation);
  add_export_command(app, invocation);
  add_import_command(app, invocation);
  add_merge_command(app, invocation);
  add_split_command(app, invocation);
  add_doctor_command(app, invocation);
  add_version_command(app, invocation);
  add_engine_process_command(app, invocation);
}

}  // namespace dsctl::cli
