#include "registry/sources/glob.h"

#include <string>

#include "registry/error.h"
#include "tests/support/catch.h"

namespace dsctl::registry {
namespace {

TEST_CASE("LfsPattern matches as git-lfs does") {
  struct Case {
    const char* pattern;
    const char* path;
    bool matches;
  };
  for (const Case& c : {
           Case{"*.gguf", "a.gguf", true},
           Case{"*.gguf", "dir/a.gguf", true},
           Case{"*.gguf", "a.gguf.txt", false},
           Case{"a*", "dir/abc/file", true},  // a folder's name: all in it
           Case{"DIR/NAME*", "DIR/NAME-1.gguf", true},
           Case{"DIR/NAME*", "DIR/NAMEs/x", true},
           Case{"DIR/NAME*", "DIR/sub/NAME-1", false},
           Case{"DIR/NAME*", "x/DIR/NAME-1", false},
           Case{"DIR/*", "DIR/a", true},
           Case{"DIR/*", "DIR/a/b", true},
           Case{"DIR/*", "DIR", false},
           Case{"DIR/", "DIR/a/b", true},
           Case{"DIR/", "x/DIR/b", true},
           Case{"DIR/", "DIR", false},
           Case{"/a", "a", true},
           Case{"/a", "b/a", false},
           Case{"a/**", "a/b/c", true},
           Case{"a/**", "a", false},
           Case{"**/c", "a/b/c", true},
           Case{"**/c", "c", true},
           Case{"a/**/c", "a/c", true},
           Case{"a/**/c", "a/x/y/c", true},
           Case{"a/**/c", "b/a/c", false},
           Case{"**", "a/b", true},
           Case{"?.bin", "a.bin", true},
           Case{"?.bin", "ab.bin", false},
           Case{"[a-c].bin", "b.bin", true},
           Case{"[!a-c].bin", "b.bin", false},
           Case{"[!a-c].bin", "d.bin", true},
           Case{"[]x].bin", "].bin", true},
           Case{"[a", "[a", true},
           Case{"a\\*b", "a*b", true},
           Case{"a\\*b", "axb", false},
           Case{"a?b", "a/b", false},
           Case{"*-0000?-of-00003.gguf", "m/x-00002-of-00003.gguf", true},
           Case{"*a*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac", false},
       }) {
    CAPTURE(c.pattern, c.path);
    CHECK(LfsPattern(c.pattern).matches(c.path) == c.matches);
  }
}

TEST_CASE("LfsFilter takes one of the included and none of the excluded") {
  const LfsFilter filter("*.gguf, docs/", "*-00002-*,docs/private");
  CHECK(filter.wants("a.gguf"));
  CHECK(filter.wants("docs/x.md"));
  CHECK_FALSE(filter.wants("README.md"));
  CHECK_FALSE(filter.wants("x-00002-of-00003.gguf"));
  CHECK_FALSE(filter.wants("docs/private/x.gguf"));
  CHECK(LfsFilter("", "*.bin").wants("a.gguf"));
  CHECK_FALSE(LfsFilter("", "*.bin").wants("a.bin"));
  CHECK(LfsFilter().wants("anything"));
}

TEST_CASE("LfsFilter refuses patterns without end") {
  CHECK_THROWS_AS(LfsPattern(std::string(5000, '*')), Error);
  CHECK_THROWS_AS(LfsPattern(""), Error);
  CHECK_THROWS_AS(LfsPattern("//"), Error);
  std::string list;
  for (int i = 0; i < 300; ++i)
    list += "a,";
  CHECK_THROWS_AS(LfsFilter(list, ""), Error);
}

}  // namespace
}  // namespace dsctl::registry
