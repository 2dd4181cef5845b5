#include "registry/local_bytes.h"

#include <sys/stat.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "registry/error.h"
#include "tests/support/catch.h"
#include "tests/support/paths.h"

namespace dsctl::registry {
namespace {

namespace fs = std::filesystem;

void write(const fs::path& path, const std::string& content) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << content;
}

std::string read(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

RemoteFile file_of(const std::string& path, const std::string& content) {
  RemoteFile file;
  file.path = path;
  file.size_bytes = static_cast<int64_t>(content.size());
  file.sha256 = Digest::of(content);
  return file;
}

TEST_CASE("has_content believes digests, not names and sizes") {
  const tests::TempDir dir;
  write(dir.path() / "a", "hello");
  CHECK(has_content(dir.path() / "a", file_of("a", "hello"), {}));
  CHECK_FALSE(has_content(dir.path() / "a", file_of("a", "hallo"), {}));
  CHECK_FALSE(has_content(dir.path() / "b", file_of("a", "hello"), {}));
  CHECK_FALSE(has_content(dir.path(), file_of("a", "hello"), {}));
  RemoteFile small;
  small.size_bytes = 5;
  small.git_sha1 = "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0";  // git hash-object
  CHECK(has_content(dir.path() / "a", small, {}));
  small.git_sha1[0] = 'a';
  CHECK_FALSE(has_content(dir.path() / "a", small, {}));
}

TEST_CASE("find_whole and find_beginning look where git-lfs and huggingface_hub leave things") {
  const tests::TempDir dir;
  const RemoteFile file = file_of("m/x.gguf", "0123456789");
  const std::string hex = file.sha256->hex();
  LocalPlaces places;
  places.dir = dir.path() / "clone";
  places.hub_cache = dir.path() / "cache";
  CHECK(find_whole(file, places).empty());
  CHECK(!find_beginning(file, places));

  write(places.dir / ".git/lfs/incomplete" / (hex + ".part"), "01234");
  CHECK(find_beginning(file, places)->path.filename() == hex + ".part");
  fs::remove_all(places.dir / ".git");
  write(places.dir / ".cache/huggingface/download/m" / ("h=." + hex + ".incomplete"), "012");
  CHECK(find_beginning(file, places)->may_share);
  fs::remove_all(places.dir / ".cache");
  write(places.hub_cache / "blobs" / (hex + ".incomplete"), "01");
  CHECK_FALSE(find_beginning(file, places)->may_share);
  write(places.hub_cache / "blobs" / (hex + ".incomplete"), "0123456789X");  // too long
  CHECK(!find_beginning(file, places));

  write(places.dir / ".git/lfs/objects" / hex.substr(0, 2) / hex.substr(2, 2) / hex, "0123456789");
  write(places.hub_cache / "blobs" / hex, "012345678");  // too short
  REQUIRE(find_whole(file, places).size() == 1);
  CHECK(find_whole(file, places)[0].may_share);
}

TEST_CASE("place_content replaces what is there and leaves nothing beside it") {
  const tests::TempDir dir;
  for (const bool may_share : {false, true}) {
    CAPTURE(may_share);
    write(dir.path() / "source", "new");
    write(dir.path() / "out/target", "old");
    place_content({dir.path() / "source", may_share}, dir.path() / "out/target");
    CHECK(read(dir.path() / "out/target") == "new");
    // Once more, when it is the same file already.
    place_content({dir.path() / "source", may_share}, dir.path() / "out/target");
    CHECK(std::distance(fs::directory_iterator(dir.path() / "out"), {}) == 1);
    fs::remove_all(dir.path() / "out");
  }
  CHECK_THROWS_AS(place_content({dir.path() / "none", true}, dir.path() / "x"), Error);
}

TEST_CASE("a note vouches for a file until that is changed") {
  const tests::TempDir dir;
  const RemoteFile file = file_of("m/x.gguf", "0123456789");
  write(dir.path() / file.path, "0123456789");
  CHECK_FALSE(is_noted(dir.path(), file));
  write_note(dir.path(), file, *file.sha256, "main");
  CHECK(is_noted(dir.path(), file));
  CHECK_FALSE(is_noted(dir.path(), file_of("m/x.gguf", "9876543210")));
  const auto later = fs::last_write_time(dir.path() / file.path) + std::chrono::seconds(60);
  fs::last_write_time(dir.path() / file.path, later);
  CHECK_FALSE(is_noted(dir.path(), file));
  for (const char* broken : {"", "x", "main\n", "main\nwrong\n1\n", "main\n\n\n"}) {
    write(dir.path() / ".cache/huggingface/download/m/x.gguf.metadata", broken);
    CHECK_FALSE(is_noted(dir.path(), file));
  }
}

}  // namespace
}  // namespace dsctl::registry
