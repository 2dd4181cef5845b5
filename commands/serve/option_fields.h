// The fields of Ollama's API that say how a model is loaded and run.
#pragma once

#include <optional>

#include "commands/duration.h"
#include "commands/model_options.h"
#include "commands/serve/json_fields.h"

namespace dsctl::commands::serve {

/// `options`. Throws ApiError 400 naming the option when it is unknown or of another type.
Options parse_options(const Fields& fields);

/// `keep_alive`: a number of seconds or a duration. Throws ApiError 400.
std::optional<KeepAlive> parse_keep_alive_field(const Fields& fields);

}  // namespace dsctl::commands::serve
