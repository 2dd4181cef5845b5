// HttpClient: this program as a client of its own server (`run`, `ps`, `stop`). No Boost here.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <string_view>

namespace dsctl::commands::serve {

struct ClientResponse {
  int status = 0;
  std::string body;
};

class HttpClient {
 public:
  /// Talks to host:port, with a connection for each request.
  HttpClient(std::string host, int port);

  /// False when nobody answers there within `timeout`.
  bool is_up(std::chrono::milliseconds timeout) const;

  /// Throws Error when the server can't be reached or speaks no HTTP.
  ClientResponse request(std::string_view method, std::string_view path, std::string body) const;

  /// As request(), but a body of status 200 goes to `on_line` line by line as it comes. Closes the
  /// connection, which cancels the request, and returns status 0 soon after `interrupted` says
  /// true.
  ClientResponse stream(std::string_view method, std::string_view path, std::string body,
                        const std::function<void(std::string_view)>& on_line,
                        const std::function<bool()>& interrupted) const;

  std::string url() const;

 private:
  std::string host_;
  int port_ = 0;
};

}  // namespace dsctl::commands::serve
