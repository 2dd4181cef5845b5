#include "tests/support/registry_http_server.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <stdexcept>

namespace dsctl::tests {
namespace {

constexpr size_t kMaxHeadBytes = 64 << 10;
constexpr int64_t kSliceBytes = 4 << 10;  // a pace is kept at this grain

std::string decode(std::string_view text) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size()) {
      decoded += static_cast<char>(std::stoi(std::string(text.substr(i + 1, 2)), nullptr, 16));
      i += 2;
    } else {
      decoded += text[i] == '+' ? ' ' : text[i];
    }
  }
  return decoded;
}

std::string_view take_until(std::string_view& text, std::string_view separator) {
  const size_t end = std::min(text.find(separator), text.size());
  const std::string_view head = text.substr(0, end);
  text.remove_prefix(std::min(end + separator.size(), text.size()));
  return head;
}

ServedRequest parse_head(std::string_view head) {
  ServedRequest request;
  request.method = take_until(head, " ");
  std::string_view target = take_until(head, " ");
  take_until(head, "\r\n");
  std::string_view query = target;
  // The path keeps '+': only forms read it as a space.
  const std::string_view raw_path = take_until(query, "?");
  for (const char c : raw_path)
    request.path += c == '+' ? std::string("%2B") : std::string(1, c);
  request.path = decode(request.path);
  while (!query.empty()) {
    std::string_view pair = take_until(query, "&");
    const std::string key = decode(take_until(pair, "="));
    request.query[key] = decode(pair);
  }
  while (!head.empty()) {
    std::string_view line = take_until(head, "\r\n");
    std::string name(take_until(line, ":"));
    for (char& c : name)
      c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    while (line.starts_with(' '))
      line.remove_prefix(1);
    request.headers[name] = line;
  }
  return request;
}

bool send_all(int fd, const char* data, size_t size) {
  while (size > 0) {
    const ssize_t n = ::send(fd, data, size, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    data += n;
    size -= static_cast<size_t>(n);
  }
  return true;
}

/// Reads one request; false when the connection ends. `buffer` keeps what came beyond it.
bool receive(int fd, std::string& buffer, ServedRequest& request) {
  char chunk[16384];
  const auto more = [&] {
    const ssize_t n = ::recv(fd, chunk, sizeof(chunk), 0);
    if (n <= 0) return false;
    buffer.append(chunk, static_cast<size_t>(n));
    return true;
  };
  size_t head_end;
  while ((head_end = buffer.find("\r\n\r\n")) == std::string::npos) {
    if (buffer.size() > kMaxHeadBytes || !more()) return false;
  }
  request = parse_head(std::string_view(buffer).substr(0, head_end + 2));
  const std::string length = request.header("content-length");
  const size_t body_bytes = length.empty() ? 0 : std::stoul(length);
  while (buffer.size() < head_end + 4 + body_bytes) {
    if (!more()) return false;
  }
  request.body = buffer.substr(head_end + 4, body_bytes);
  buffer.erase(0, head_end + 4 + body_bytes);
  return true;
}

}  // namespace

std::string ServedRequest::header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? "" : found->second;
}

std::optional<std::pair<int64_t, int64_t>> ServedRequest::range() const {
  std::string_view text = headers.count("range") ? headers.at("range") : std::string_view();
  if (!text.starts_with("bytes=")) return std::nullopt;
  text.remove_prefix(6);
  const int64_t begin = std::stoll(std::string(take_until(text, "-")));
  return std::pair{begin, text.empty() ? -1 : std::stoll(std::string(text)) + 1};
}

HttpServer::HttpServer(Handler handler, const std::string& address)
    : handler_(std::move(handler)), address_(address) {
  listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in name{};
  name.sin_family = AF_INET;
  ::inet_pton(AF_INET, address.c_str(), &name.sin_addr);
  socklen_t size = sizeof(name);
  if (::bind(listener_, reinterpret_cast<sockaddr*>(&name), size) != 0 ||
      ::listen(listener_, 128) != 0 ||
      ::getsockname(listener_, reinterpret_cast<sockaddr*>(&name), &size) != 0) {
    throw std::runtime_error("test server: can't listen on " + address);
  }
  port_ = ntohs(name.sin_port);
  acceptor_ = std::thread([this] { accept_loop(); });
}

HttpServer::~HttpServer() {
  stopping_ = true;
  ::shutdown(listener_, SHUT_RDWR);
  acceptor_.join();
  ::close(listener_);
  {
    const std::lock_guard lock(mutex_);
    for (const int fd : open_fds_)
      ::shutdown(fd, SHUT_RDWR);
  }
  for (std::thread& thread : threads_)
    thread.join();
}

std::string HttpServer::url(const std::string& path) const {
  return "http://" + address_ + ":" + std::to_string(port_) + path;
}

std::vector<ServedRequest> HttpServer::requests() const {
  const std::lock_guard lock(mutex_);
  return requests_;
}

size_t HttpServer::n_requests() const {
  const std::lock_guard lock(mutex_);
  return requests_.size();
}

void HttpServer::accept_loop() {
  while (!stopping_) {
    const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) continue;
    const int on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    const std::lock_guard lock(mutex_);
    open_fds_.push_back(fd);
    threads_.emplace_back([this, fd, idx = n_connections_++] { serve(fd, idx); });
  }
}

void HttpServer::serve(int fd, size_t connection_idx) {
  std::string buffer;
  ServedRequest request;
  while (!stopping_ && receive(fd, buffer, request)) {
    request.connection_idx = connection_idx;
    {
      const std::lock_guard lock(mutex_);
      requests_.push_back(request);
    }
    if (!answer(fd, request, handler_(request))) break;
  }
  const std::lock_guard lock(mutex_);
  open_fds_.erase(std::find(open_fds_.begin(), open_fds_.end(), fd));
  ::close(fd);
}

/// True when the connection can serve another request.
bool HttpServer::answer(int fd, const ServedRequest& request, const ServedReply& reply) {
  if (reply.delay_ms > 0 && !wait(int64_t{reply.delay_ms} * 1000)) return false;
  std::string_view body = reply.body;
  if (reply.content) {
    body = std::string_view(*reply.content)
               .substr(static_cast<size_t>(reply.content_begin),
                       static_cast<size_t>(reply.content_end - reply.content_begin));
  }
  std::string head = "HTTP/1.1 " + std::to_string(reply.status) + " Test\r\n";
  for (const std::string& header : reply.headers)
    head += header + "\r\n";
  if (reply.says_length) head += "Content-Length: " + std::to_string(body.size()) + "\r\n";
  if (!reply.says_length) head += "Connection: close\r\n";
  head += "\r\n";
  if (!send_all(fd, head.data(), head.size())) return false;
  if (request.method == "HEAD") return true;
  return send_body(fd, body, reply) && reply.says_length;
}

bool HttpServer::send_body(int fd, std::string_view body, const ServedReply& reply) {
  const auto begin = std::chrono::steady_clock::now();
  const int64_t size = static_cast<int64_t>(body.size());
  int64_t sent = 0;
  int64_t end = size;
  if (reply.cut_after >= 0) end = std::min(end, reply.cut_after);
  if (reply.stall_after >= 0) end = std::min(end, reply.stall_after);
  std::string altered;
  while (sent < end && !stopping_) {
    const bool paced = reply.bytes_per_second > 0 || bytes_per_second_ > 0;
    int64_t slice = std::min(end - sent, paced ? kSliceBytes : kSliceBytes * 64);
    if (reply.bytes_per_second > 0) {
      slice = std::min(slice, std::max<int64_t>(1, reply.bytes_per_second / 50));
      pace(sent, reply.bytes_per_second, begin);
    }
    share_rate(slice);
    const char* data = body.data() + sent;
    if (reply.flip_at >= sent && reply.flip_at < sent + slice) {
      altered.assign(data, static_cast<size_t>(slice));
      altered[static_cast<size_t>(reply.flip_at - sent)] ^= 1;
      data = altered.data();
    }
    body_bytes_ += slice;  // before: whoever has got them finds them counted
    if (!send_all(fd, data, static_cast<size_t>(slice))) return false;
    sent += slice;
  }
  if (reply.stall_after >= 0 && sent == reply.stall_after && sent < size) {
    char byte;
    while (!stopping_ && ::recv(fd, &byte, 1, 0) > 0)
      continue;  // until the client goes
    return false;
  }
  return sent == size && !stopping_;
}

void HttpServer::pace(int64_t n_bytes, int64_t bytes_per_second,
                      std::chrono::steady_clock::time_point begin) {
  const auto due = begin + std::chrono::microseconds(n_bytes * 1'000'000 / bytes_per_second);
  const auto now = std::chrono::steady_clock::now();
  if (due > now) wait(std::chrono::duration_cast<std::chrono::microseconds>(due - now).count());
}

void HttpServer::share_rate(int64_t n_bytes) {
  const int64_t rate = bytes_per_second_;
  if (rate <= 0) return;
  std::chrono::steady_clock::time_point turn;
  {
    const std::lock_guard lock(mutex_);
    turn = std::max(shared_free_at_, std::chrono::steady_clock::now());
    shared_free_at_ = turn + std::chrono::nanoseconds(n_bytes * 1'000'000'000 / rate);
  }
  const auto now = std::chrono::steady_clock::now();
  if (turn > now) wait(std::chrono::duration_cast<std::chrono::microseconds>(turn - now).count());
}

/// False when the server stops meanwhile.
bool HttpServer::wait(int64_t microseconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(microseconds);
  while (!stopping_) {
    const auto left = end - std::chrono::steady_clock::now();
    if (left <= std::chrono::nanoseconds(0)) return true;
    std::this_thread::sleep_for(
        std::min<std::chrono::nanoseconds>(left, std::chrono::milliseconds(20)));
  }
  return false;
}

ServedReply serve_content(const ServedRequest& request, std::shared_ptr<const std::string> content,
                          const std::string& etag) {
  ServedReply reply;
  const int64_t size = static_cast<int64_t>(content->size());
  reply.content = std::move(content);
  reply.content_end = size;
  if (!etag.empty()) reply.headers.push_back("ETag: " + etag);
  reply.headers.push_back("Accept-Ranges: bytes");
  const auto range = request.range();
  if (!range) return reply;
  if (range->first >= size) {
    reply.status = 416;
    reply.headers.push_back("Content-Range: bytes */" + std::to_string(size));
    reply.content = nullptr;
    return reply;
  }
  reply.status = 206;
  reply.content_begin = range->first;
  reply.content_end = range->second < 0 ? size : std::min(size, range->second);
  reply.headers.push_back("Content-Range: bytes " + std::to_string(reply.content_begin) + "-" +
                          std::to_string(reply.content_end - 1) + "/" + std::to_string(size));
  return reply;
}

std::shared_ptr<const std::string> random_content(size_t n, uint64_t seed) {
  std::mt19937_64 random(seed);
  auto content = std::make_shared<std::string>(n, '\0');
  for (size_t i = 0; i < n; i += 8) {
    const uint64_t word = random();
    std::memcpy(content->data() + i, &word, std::min<size_t>(8, n - i));
  }
  return content;
}

}  // namespace dsctl::tests
