#include <iostream>
#include <memory>

#include "cli/options.h"
#include "commands/tokenize.h"

namespace dsctl::cli {

void add_tokenize_command(CLI::App& app, Invocation& invocation) {
  using Options = commands::TokenizeOptions;
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("tokenize", "Show the tokens of a text");
  command
      ->add_option("model", options->model, "A model's name, a GGUF file, or any shard of a split")
      ->required();
  auto* text = command->add_option("text", options->text, "The text; without it standard input");

  const auto output = [options](Options::Output wanted) {
    return [options, wanted] { options->output = wanted; };
  };
  auto* ids = command->add_flag_callback("--ids", output(Options::Output::kIds),
                                         "Print the ids on one line (the default)");
  auto* json = command->add_flag_callback("--json", output(Options::Output::kJson),
                                          "Print a JSON array of {id, piece}");
  auto* count = command->add_flag_callback("--count", output(Options::Output::kCount),
                                           "Print only how many there are");
  ids->excludes(json)->excludes(count);
  json->excludes(count);

  auto* parse = command->add_flag_callback(
      "--parse-special", [options] { options->parse_special = true; },
      "Take <|im_end|> and the like in the text for control tokens (the default)");
  auto* no_special = command->add_flag_callback(
      "--no-special", [options] { options->parse_special = false; }, "Take them for plain text");
  parse->excludes(no_special);

  auto* add_bos = command->add_flag_callback(
      "--add-bos", [options] { options->bos = Options::Bos::kAlways; },
      "Begin with BOS even when the vocabulary does not ask for it");
  auto* no_bos = command->add_flag_callback(
      "--no-bos", [options] { options->bos = Options::Bos::kNever; }, "Add neither BOS nor EOS");
  add_bos->excludes(no_bos);

  command->add_option("--decode", options->decode, "Print the text of these ids: \"1 2 3\"")
      ->excludes(text)
      ->excludes(json)
      ->excludes(count);
  command->callback([options, &invocation] {
    invocation.run = [options, &invocation] {
      return commands::tokenize(invocation.settings, *options, std::cin, *invocation.console);
    };
  });
}

}  // namespace dsctl::cli
