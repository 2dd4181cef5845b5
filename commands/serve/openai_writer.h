// Answers in OpenAI's form, whole or streamed, for chats and for completions.
#pragma once

#include <memory>

#include "commands/serve/api_openai.h"

namespace dsctl::commands::serve {

std::unique_ptr<AnswerWriter> make_openai_writer(std::shared_ptr<Exchange> exchange,
                                                 const OpenAiGenerate& parsed);

}  // namespace dsctl::commands::serve
