// Answers of /api/generate and /api/chat in Ollama's form, whole or streamed.
#pragma once

#include <memory>

#include "commands/serve/api_ollama.h"

namespace dsctl::commands::serve {

std::unique_ptr<AnswerWriter> make_ollama_writer(std::shared_ptr<Exchange> exchange,
                                                 const OllamaGenerate& parsed);

}  // namespace dsctl::commands::serve
