#include "commands/stop.h"

#include <nlohmann/json.hpp>

#include "commands/error.h"
#include "commands/serve/client.h"

namespace dsctl::commands {

int stop(const std::string& model, const Settings& settings, Console&) {
  using Json = nlohmann::ordered_json;
  const serve::HttpClient client(settings.host, settings.port);
  const Json body = {{"model", model}, {"keep_alive", 0}, {"stream", false}};
  const serve::ClientResponse response = client.request("POST", "/api/generate", body.dump());
  if (response.status == 200) return 0;
  if (response.status == 404) throw Error("couldn't find model \"" + model + "\" to stop");
  const Json answer = Json::parse(response.body, nullptr, false);
  throw Error(answer.is_object() && answer.contains("error") && answer["error"].is_string()
                  ? answer["error"].get<std::string>()
                  : "the server answered with status " + std::to_string(response.status));
}

}  // namespace dsctl::commands
