// The terminal: Console for a person. Progress lines, line editing with history, Ctrl-C as a flag.
#pragma once

#include <memory>

#include "commands/console.h"

namespace dsctl::cli {

/// The program's console on standard input, output and error. One per process: it owns SIGINT.
std::unique_ptr<commands::Console> make_terminal();

}  // namespace dsctl::cli
