// download() against a server on loopback whose link is limited: the rate as a share of the limit,
// and the processor time per gigabyte beside aria2c and sha256sum, which do the same in two passes.
// Each in a process of its own, interleaved, so that a busy machine is unfair to both alike.
//
//   download_bench [GIB [ROUNDS [DIRECTORY [GBITS...]]]]     0 Gbit/s: no limit
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "registry/download.h"
#include "registry/file_io.h"

namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using dsctl::registry::Digest;

/// One clock for all connections: who sends, waits for his turn.
class Link {
 public:
  explicit Link(double bytes_per_second) : bytes_per_second_(bytes_per_second) {}

  void wait_for(int64_t n_bytes) {
    if (bytes_per_second_ <= 0) return;
    Clock::time_point turn;
    {
      const std::lock_guard lock(mutex_);
      const auto now = Clock::now();
      // Late sleepers catch up within 10 ms, as a switch's queue would let them.
      turn = std::max(free_at_, now - std::chrono::milliseconds(10));
      free_at_ = turn + std::chrono::nanoseconds(static_cast<int64_t>(static_cast<double>(n_bytes) *
                                                                      1e9 / bytes_per_second_));
    }
    std::this_thread::sleep_until(turn);
  }

 private:
  double bytes_per_second_;
  std::mutex mutex_;
  Clock::time_point free_at_ = Clock::now();
};

/// Answers ranged GETs of one file, by sendfile, until the client goes.
void serve_connection(int socket, int file, int64_t size, Link& link) {
  std::string buffer;
  char piece[8192];
  while (true) {
    size_t end;
    while ((end = buffer.find("\r\n\r\n")) == std::string::npos) {
      const ssize_t n = ::recv(socket, piece, sizeof(piece), 0);
      if (n <= 0) {
        ::close(socket);
        return;
      }
      buffer.append(piece, static_cast<size_t>(n));
    }
    const std::string head = buffer.substr(0, end);
    buffer.erase(0, end + 4);
    long long begin = 0;
    long long last = size - 1;
    const size_t range = head.find("ange: bytes=");
    if (range != std::string::npos)
      std::sscanf(head.c_str() + range + 12, "%lld-%lld", &begin, &last);
    last = std::min<long long>(last, size - 1);
    std::string answer =
        range == std::string::npos ? "HTTP/1.1 200 OK\r\n" : "HTTP/1.1 206 Partial\r\n";
    answer += "Accept-Ranges: bytes\r\nETag: \"bench\"\r\nContent-Length: " +
              std::to_string(last - begin + 1) + "\r\n";
    if (range != std::string::npos) {
      answer += "Content-Range: bytes " + std::to_string(begin) + "-" + std::to_string(last) + "/" +
                std::to_string(size) + "\r\n";
    }
    answer += "\r\n";
    bool works = ::send(socket, answer.data(), answer.size(), MSG_NOSIGNAL) > 0;
    off_t offset = begin;
    while (works && offset <= last && head[0] != 'H') {
      const int64_t slice = std::min<int64_t>(256 << 10, last - offset + 1);
      link.wait_for(slice);
      for (int64_t left = slice; works && left > 0;) {
        const ssize_t n = ::sendfile(socket, file, &offset, static_cast<size_t>(left));
        works = n > 0;
        left -= n;
      }
    }
    if (!works) {
      ::close(socket);
      return;
    }
  }
}

struct Server {
  pid_t pid = 0;
  int port = 0;
};

Server start_server(const fs::path& file, double gbits) {
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(name);
  if (::bind(listener, reinterpret_cast<sockaddr*>(&name), size) != 0 ||
      ::listen(listener, 128) != 0 ||
      ::getsockname(listener, reinterpret_cast<sockaddr*>(&name), &size) != 0) {
    std::perror("listen");
    std::exit(1);
  }
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::signal(SIGPIPE, SIG_IGN);
    Link link(gbits * 1e9 / 8);
    const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
    while (true) {
      const int socket = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
      if (socket < 0) continue;
      const int on = 1;
      ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
      std::thread([=, &link] {
        serve_connection(socket, fd, static_cast<int64_t>(fs::file_size(file)), link);
      }).detach();
    }
  }
  ::close(listener);
  return {pid, ntohs(name.sin_port)};
}

/// What a child took.
struct Cost {
  double wall_s = 0;
  double cpu_s = 0;
  double memory_mib = 0;
};

Cost run(const std::function<void()>& body) {
  const auto begin = Clock::now();
  const pid_t pid = ::fork();
  if (pid == 0) {
    body();
    ::_exit(0);
  }
  int status = 0;
  rusage usage{};
  ::wait4(pid, &status, 0, &usage);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    std::fprintf(stderr, "a client failed\n");
    std::exit(1);
  }
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  const std::chrono::duration<double> wall = Clock::now() - begin;
  return {wall.count(), seconds(usage.ru_utime) + seconds(usage.ru_stime),
          static_cast<double>(usage.ru_maxrss) / 1024};
}

void exec_quietly(std::vector<std::string> arguments) {
  const int null = ::open("/dev/null", O_WRONLY);
  ::dup2(null, 1);
  std::vector<char*> raw;
  for (std::string& argument : arguments)
    raw.push_back(argument.data());
  raw.push_back(nullptr);
  ::execvp(raw[0], raw.data());
  ::_exit(127);
}

bool has_program(const std::string& name) {
  return std::system(("command -v " + name + " >/dev/null 2>&1").c_str()) == 0;
}

Digest write_random(const fs::path& path, int64_t size) {
  std::mt19937_64 random(1);
  std::string block(16 << 20, '\0');
  for (size_t i = 0; i < block.size(); i += 8) {
    const uint64_t word = random();
    std::memcpy(block.data() + i, &word, 8);
  }
  dsctl::registry::Hasher hasher;
  const auto file = dsctl::registry::open_file(path, O_WRONLY | O_CREAT | O_TRUNC);
  for (int64_t written = 0; written < size; written += static_cast<int64_t>(block.size())) {
    std::memcpy(block.data(), &written, 8);
    dsctl::registry::write_all(file.get(), block, path);
    hasher.update(std::as_bytes(std::span(block)));
  }
  return hasher.finish();
}

/// What the machine can serve: eight connections whose bytes are read and dropped.
void drain(int port, int64_t size) {
  constexpr int kConnections = 8;
  const int64_t part = size / kConnections;
  std::vector<std::jthread> threads;
  for (int i = 0; i < kConnections; ++i) {
    threads.emplace_back([=] {
      const int64_t begin = i * part;
      const int64_t end = i + 1 == kConnections ? size : begin + part;
      const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      sockaddr_in name{};
      name.sin_family = AF_INET;
      name.sin_port = htons(static_cast<uint16_t>(port));
      name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      const std::string request = "GET /file HTTP/1.1\r\nRange: bytes=" + std::to_string(begin) +
                                  "-" + std::to_string(end - 1) + "\r\n\r\n";
      bool works = ::connect(socket, reinterpret_cast<sockaddr*>(&name), sizeof(name)) == 0 &&
                   ::send(socket, request.data(), request.size(), MSG_NOSIGNAL) > 0;
      std::vector<char> buffer(512 << 10);
      for (int64_t left = end - begin; works && left > 0;) {  // the head counts too: it is short
        const ssize_t n = ::recv(socket, buffer.data(), buffer.size(), 0);
        works = n > 0;
        left -= n;
      }
      ::close(socket);
      if (!works) ::_exit(1);
    });
  }
}

/// The best of the rounds: what else runs on the machine only takes away.
double report(const char* what, const std::vector<Cost>& costs, double gigabytes, double gbits,
              double limit) {
  Cost best = costs[0];
  for (const Cost& cost : costs) {
    best.wall_s = std::min(best.wall_s, cost.wall_s);
    best.cpu_s = std::min(best.cpu_s, cost.cpu_s);
    best.memory_mib = std::min(best.memory_mib, cost.memory_mib);
  }
  const double rate = gigabytes / best.wall_s;
  std::printf("%-22s %6.3f GB/s", what, rate);
  if (gbits > 0) std::printf("  %5.3f of the link", rate / (gbits / 8));
  if (limit > 0) std::printf("  %5.3f of drained", rate / limit);
  std::printf("  %5.3f CPU s/GB  %4.0f MiB\n", best.cpu_s / gigabytes, best.memory_mib);
  std::fflush(stdout);
  return rate;
}

}  // namespace

int main(int argc, char** argv) {
  const double gib = argc > 1 ? std::atof(argv[1]) : 2;
  const int n_rounds = argc > 2 ? std::atoi(argv[2]) : 3;
  const fs::path dir = fs::path(argc > 3 ? argv[3] : "/dev/shm") / "dsctl-download-bench";
  std::vector<double> links{1, 10, 0};
  if (argc > 4) links.clear();
  for (int i = 4; i < argc; ++i)
    links.push_back(std::atof(argv[i]));

  fs::create_directories(dir);
  const auto size = static_cast<int64_t>(gib * 64) * (16 << 20);
  const fs::path source = dir / "source";
  const Digest digest = write_random(source, size);
  const double gigabytes = static_cast<double>(size) / 1e9;
  const bool has_aria2 = has_program("aria2c");
  for (const double gbits : links) {
    const Server server = start_server(source, gbits);
    const std::string url = "http://127.0.0.1:" + std::to_string(server.port) + "/file";
    std::vector<Cost> drained, ours, theirs, fetch_only;
    for (int round = 0; round < n_rounds; ++round) {
      drained.push_back(run([&] { drain(server.port, size); }));
      ours.push_back(run([&] {
        dsctl::registry::RemoteFile file;
        file.path = "file";
        file.size_bytes = size;
        file.sha256 = digest;
        file.locate = [&] { return dsctl::registry::DownloadUrl{url, {}, 0}; };
        const dsctl::registry::DownloadTask task{file, dir / "ours.part", dir / "ours"};
        dsctl::registry::download(std::span(&task, 1), {});
      }));
      fs::remove(dir / "ours");
      if (!has_aria2) continue;
      const Cost fetch = run([&] {
        exec_quietly({"aria2c", "-q", "-x8", "-s8", "--file-allocation=none", "-d", dir.string(),
                      "-o", "theirs", url});
      });
      const Cost hash = run([&] { exec_quietly({"sha256sum", (dir / "theirs").string()}); });
      fetch_only.push_back(fetch);
      theirs.push_back({fetch.wall_s + hash.wall_s, fetch.cpu_s + hash.cpu_s, fetch.memory_mib});
      fs::remove(dir / "theirs");
    }
    std::printf("%.1f GB, %g Gbit/s%s\n", gigabytes, gbits, gbits > 0 ? "" : " (no limit)");
    const double limit = report("read and dropped", drained, gigabytes, gbits, 0);
    report("dsctl", ours, gigabytes, gbits, limit);
    if (has_aria2) report("aria2c", fetch_only, gigabytes, gbits, limit);
    if (has_aria2) report("aria2c + sha256sum", theirs, gigabytes, gbits, limit);
    ::kill(server.pid, SIGKILL);
    ::waitpid(server.pid, nullptr, 0);
  }
  fs::remove_all(dir);
}
