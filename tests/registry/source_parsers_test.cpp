// What servers send, well-formed, broken and hostile.
#include <string>
#include <vector>

#include "registry/error.h"
#include "registry/sources/auth_challenge.h"
#include "registry/sources/credentials.h"
#include "registry/sources/huggingface.h"
#include "registry/sources/lfs_batch.h"
#include "registry/sources/lfs_pointer.h"
#include "registry/sources/modelscope.h"
#include "registry/sources/remote_path.h"
#include "registry/sources/signed_url.h"
#include "tests/support/catch.h"
#include "tests/support/paths.h"

namespace dsctl::registry {
namespace {

using Catch::Contains;

const std::string kHex(64, 'a');
const std::string kCommit(40, 'c');
const std::string kPointer =
    "version https://git-lfs.github.com/spec/v1\noid sha256:" + kHex + "\nsize 12345\n";

TEST_CASE("LfsPointer reads pointers and refuses what only looks like one") {
  const LfsPointer pointer = LfsPointer::parse(kPointer);
  CHECK(pointer.oid.hex() == kHex);
  CHECK(pointer.size_bytes == 12345);
  CHECK(LfsPointer::is_pointer(kPointer));
  CHECK(LfsPointer::parse(
            "version https://hawser.github.com/spec/v1\next-0-x sha256:1\noid sha256:" + kHex +
            "\nsize 0\nx 1\n")
            .size_bytes == 0);
  CHECK_FALSE(LfsPointer::is_pointer("GGUF"));
  CHECK_FALSE(LfsPointer::is_pointer(kPointer + std::string(1000, '\n')));
  const std::string version = "version https://git-lfs.github.com/spec/v1\n";
  const std::string upper = "oid sha256:" + std::string(64, 'A') + "\nsize 1\n";
  for (const std::string& broken : {
           std::string(),
           std::string("version https://git-lfs.github.com/spec/v2\noid sha256:" + kHex),
           version,
           version + "oid sha256:" + kHex + "\n",
           version + "size 1\n",
           version + "size 1\noid sha256:" + kHex + "\n",
           version + "oid sha256:" + kHex + "\noid sha256:" + kHex + "\nsize 1\n",
           version + "oid sha256:" + kHex.substr(1) + "\nsize 1\n",
           version + "oid md5:" + kHex + "\nsize 1\n",
           version + upper,
           version + "oid sha256:" + kHex + "\nsize -1\n",
           version + "oid sha256:" + kHex + "\nsize 1x\n",
           version + "oid sha256:" + kHex + "\nsize 99999999999999999999\n",
           version + "oid sha256:" + kHex + "\r\nsize 1\r\n",
           version + "oid sha256:" + kHex + "\n\nsize 1\n",
           version + "OID sha256:" + kHex + "\nsize 1\n",
           kPointer + std::string(1024, 'x'),
       }) {
    CAPTURE(broken);
    CHECK_THROWS_AS(LfsPointer::parse(broken), Error);
  }
}

TEST_CASE("checked_remote_path lets no name out of the directory") {
  for (const char* good :
       {"a", "a/b.gguf", "a b/c", "\xe6\xa8\xa1\xe5\x9e\x8b.gguf", "..a/b..", ".x"}) {
    CHECK(checked_remote_path(good, "list") == good);
  }
  for (const std::string& bad : {std::string(),
                                 std::string("/etc/passwd"),
                                 std::string("../x"),
                                 std::string("a/../../x"),
                                 std::string("a//b"),
                                 std::string("a/"),
                                 std::string("./a"),
                                 std::string("a/."),
                                 std::string("a\0b", 3),
                                 std::string("a\nb"),
                                 std::string("a\x1b[2J"),
                                 std::string("a\\b"),
                                 std::string(".git/config"),
                                 std::string("x/.GIT/hooks/post-checkout"),
                                 std::string(".dsctl/x"),
                                 std::string("\xff\xfe"),
                                 std::string("\xc0\xaf"),
                                 std::string("a\x7f"),
                                 std::string(256, 'a'),
                                 std::string(3000, '/')}) {
    CAPTURE(bad);
    CHECK_THROWS_WITH(checked_remote_path(bad, "list"), Contains("list: the file name"));
  }
}

TEST_CASE("local_path_below writes through no symbolic link") {
  const tests::TempDir dir;
  const auto root = dir.path() / "root";
  CHECK(local_path_below(root, "a/b/c") == root / "a/b/c");
  CHECK(std::filesystem::is_directory(root / "a/b"));
  std::filesystem::create_directory_symlink(dir.path(), root / "link");
  CHECK_THROWS_WITH(local_path_below(root, "link/x"), Contains("symbolic link"));
  CHECK_THROWS_WITH(local_path_below(root, "link/deeper/x"), Contains("symbolic link"));
}

TEST_CASE("parse_hf_tree reads files with sizes and digests") {
  const std::string json = R"([{"type":"directory","oid":")" + kCommit +
                           R"(","size":0,"path":"Q4"},{"type":"file","oid":")" + kCommit +
                           R"(","size":7,"path":"README.md"},{"type":"file","oid":")" + kCommit +
                           R"(","size":130,"path":"Q4/m.gguf","lfs":{"oid":")" + kHex +
                           R"(","size":48339779936,"pointerSize":130},"xetHash":"x"}])";
  const std::vector<RemoteFile> files = parse_hf_tree(json, "tree");
  REQUIRE(files.size() == 2);
  CHECK(files[0].path == "README.md");
  CHECK(files[0].git_sha1 == kCommit);
  CHECK(!files[0].sha256);
  CHECK(files[1].size_bytes == 48339779936);
  CHECK(files[1].sha256->hex() == kHex);
}

TEST_CASE("parse_hf_tree refuses broken and hostile lists, naming the field") {
  struct Bad {
    std::string json;
    const char* why;
  };
  for (const Bad& bad : {
           Bad{"", "is no JSON"},
           Bad{"<html>", "is no JSON"},
           Bad{"{}", "expected a list"},
           Bad{"[1]", "expected a JSON object"},
           Bad{R"([{"type":"file"}])", "is empty"},
           Bad{R"([{"type":1}])", "type: expected a string"},
           Bad{R"([{"type":"file","path":"../../x","size":1}])", "refused"},
           Bad{R"([{"type":"file","path":"a\u0000b","size":1}])", "control character"},
           Bad{R"([{"type":"file","path":"a"}])", "size is missing"},
           Bad{R"([{"type":"file","path":"a","size":-1}])", "size: expected"},
           Bad{R"([{"type":"file","path":"a","size":1e30}])", "size: expected"},
           Bad{R"([{"type":"file","path":"a","size":18446744073709551615}])", "size: expected"},
           Bad{R"([{"type":"file","path":"a","size":1,"lfs":{}}])", "oid is missing"},
           Bad{R"([{"type":"file","path":"a","size":1,"lfs":{"oid":"xyz"}}])", "64 hexadecimal"},
           Bad{R"([{"type":"file","path":"a","size":1,"lfs":[]}])", "lfs: expected an object"},
       }) {
    CAPTURE(bad.json);
    CHECK_THROWS_WITH(parse_hf_tree(bad.json, "tree"), Contains(bad.why));
  }
}

TEST_CASE("parse_hf_model_info wants a commit") {
  const HfModelInfo info = parse_hf_model_info(
      R"({"id":"a/b","sha":")" + kCommit + R"(","gated":"manual","disabled":false})", "info");
  CHECK(info.commit == kCommit);
  CHECK(info.is_gated);
  CHECK_FALSE(parse_hf_model_info(R"({"sha":")" + kCommit + R"(","gated":false})", "i").is_gated);
  CHECK_THROWS_WITH(parse_hf_model_info("{}", "info"), Contains("expected a commit"));
  CHECK_THROWS_WITH(parse_hf_model_info(R"({"sha":"../../x"})", "info"), Contains("commit"));
  CHECK_THROWS_WITH(parse_hf_model_info("[]", "info"), Contains("JSON object"));
}

TEST_CASE("next_page_query takes the query of the next page alone") {
  CHECK(
      next_page_query(R"(<https://huggingface.co/api/x?recursive=true&cursor=abc>; rel="next")") ==
      "recursive=true&cursor=abc");
  CHECK(next_page_query(R"(<https://h/?a=1>; rel="prev", <https://h/?a=2>; rel="next")") == "a=2");
  CHECK(!next_page_query(R"(<https://h/?a=1>; rel="prev")"));
  CHECK(!next_page_query("<https://h/x>; rel=\"next\""));
  CHECK(!next_page_query("<https://h/?a=1\r\nX: y>; rel=\"next\""));
  CHECK(!next_page_query("<"));
  CHECK(!next_page_query(""));
}

TEST_CASE("parse_modelscope_files reads blobs and the envelope's errors") {
  const std::string json =
      R"({"Code":200,"Success":true,"Data":{"Files":[{"Type":"tree","Path":"Q4","Size":0},)"
      R"({"Type":"blob","Path":"Q4/m.gguf","Size":99,"IsLFS":true,"Sha256":")" +
      kHex + R"("},{"Type":"blob","Path":"README.md","Size":5,"Sha256":""}]}})";
  const std::vector<RemoteFile> files = parse_modelscope_files(json, "files");
  REQUIRE(files.size() == 2);
  CHECK(files[0].sha256->hex() == kHex);
  CHECK(!files[1].sha256);
  CHECK(parse_modelscope_files(R"({"Code":200,"Data":{}})", "files").empty());
  CHECK_THROWS_WITH(parse_modelscope_files(R"({"Code":10010205001,"Message":"gone\u001b"})", "f"),
                    Contains("gone?"));
  CHECK_THROWS_WITH(parse_modelscope_files(R"({"Code":200})", "f"), Contains("Data is missing"));
  CHECK_THROWS_WITH(
      parse_modelscope_files(
          R"({"Code":200,"Data":{"Files":[{"Type":"blob","Path":"/etc/x","Size":1}]}})", "f"),
      Contains("is absolute"));
  CHECK_THROWS_WITH(
      parse_modelscope_files(R"({"Code":200,"Data":{"Files":[{"Type":"blob","Path":"x"}]}})", "f"),
      Contains("Size is missing"));
}

TEST_CASE("parse_lfs_batch reads places, headers, lives and errors") {
  const std::string json = R"({"transfer":"basic","objects":[{"oid":")" + kHex +
                           R"(","size":1,"authenticated":true,"actions":{"download":{"href":)"
                           R"("https://s/x","header":{"Authorization":"Basic eDp5"},)"
                           R"("expires_in":3600,"expires_at":"2001-01-01T00:00:00Z"}}},{"oid":")" +
                           std::string(64, 'b') +
                           R"(","size":2,"error":{"code":404,"message":"no such\n object"}},)"
                           R"({"oid":")" +
                           std::string(64, 'd') + R"(","size":2}]})";
  const std::vector<LfsAnswer> answers = parse_lfs_batch(json, "batch");
  REQUIRE(answers.size() == 3);
  CHECK(answers[0].url == "https://s/x");
  CHECK(answers[0].headers == std::vector<std::string>{"Authorization: Basic eDp5"});
  CHECK(answers[0].is_authenticated);
  CHECK(answers[0].life_seconds == 3600);
  CHECK(answers[1].error_code == 404);
  CHECK(answers[1].error_message == "no such? object");
  CHECK(answers[2].error_code == 404);
}

TEST_CASE("parse_lfs_batch refuses hostile answers") {
  const auto with_action = [](const std::string& action) {
    return R"({"objects":[{"oid":")" + kHex + R"(","actions":{"download":)" + action + "}}]}";
  };
  struct Bad {
    std::string json;
    const char* why;
  };
  for (const Bad& bad : {
           Bad{"", "is no JSON"},
           Bad{"{}", "objects is missing"},
           Bad{R"({"objects":[{}]})", "oid is missing"},
           Bad{R"({"transfer":"tus","objects":[]})", "asked for basic"},
           Bad{R"({"hash_algo":"md5","objects":[]})", "expected sha256"},
           Bad{with_action(R"({"href":"file:///etc/passwd"})"), "expected http or https"},
           Bad{with_action(R"({"href":"/x"})"), "expected http or https"},
           Bad{with_action(R"({"href":"https://s/x","header":{"A\r\nB":"c"}})"), "is no header"},
           Bad{with_action(R"({"href":"https://s/x","header":{"A":"c\r\nHost: evil"}})"),
               "is no header"},
           Bad{with_action(R"({"href":"https://s/x","header":{"A":1}})"), "is no header"},
           Bad{with_action(R"([])"), "download: expected an object"},
       }) {
    CAPTURE(bad.json);
    CHECK_THROWS_WITH(parse_lfs_batch(bad.json, "batch"), Contains(bad.why));
  }
}

TEST_CASE("lfs_url_of adds what git-lfs adds") {
  CHECK(lfs_url_of("https://h/a/b.git") == "https://h/a/b.git/info/lfs");
  CHECK(lfs_url_of("https://h/a/b/") == "https://h/a/b.git/info/lfs");
}

TEST_CASE("AuthChallenge reads a registry's answer") {
  const auto challenge =
      AuthChallenge::parse(R"(Bearer realm="https://ollama.com/token?x=y",service="ollama.com",)"
                           R"(scope="repository:library/x:pull,push",error="a \"b\"")");
  REQUIRE(challenge);
  CHECK(challenge->realm == "https://ollama.com/token?x=y");
  CHECK(challenge->scope == "repository:library/x:pull,push");
  CHECK(challenge->token_url("n", 7) ==
        "https://ollama.com/token?nonce=n&scope=repository%3Alibrary%2Fx%3Apull%2Cpush&service="
        "ollama.com&ts=7");
  for (const char* bad : {"", "Basic realm=\"x\"", "Bearer", "Bearer realm=\"unterminated",
                          "Bearer realm=\"file:///x\"", "Bearer realm=x", "Bearer =,=,="}) {
    CAPTURE(bad);
    CHECK(!AuthChallenge::parse(bad));
  }
}

// Made with ssh-keygen for this test; the signature is OpenSSL's.
const std::string kKey =
    "-----BEGIN OPENSSH "
    "PRIVATE KEY-----\n"
    "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW\n"
    "QyNTUxOQAAACAF1GUxCF55pTtqQyRD7NTKtSogBZhTmvj1OAO4AkoH/wAAAIiof1A3qH9Q\n"
    "NwAAAAtzc2gtZWQyNTUxOQAAACAF1GUxCF55pTtqQyRD7NTKtSogBZhTmvj1OAO4AkoH/w\n"
    "AAAEDP25EvtD0vvvWsWl693mP75gNe2LAfRSGGPyMB8kEUOgXUZTEIXnmlO2pDJEPs1Mq1\n"
    "KiAFmFOa+PU4A7gCSgf/AAAABHRlc3QB\n"
    "-----END OPENSSH "
    "PRIVATE KEY-----\n";

TEST_CASE("SigningKey signs as Ollama does") {
  const SigningKey key = SigningKey::parse(kKey);
  CHECK(key.authorize("https://registry.example/v2/token?nonce=abc&scope=repository%3Alibrary%2Fx%"
                      "3Apull&service=registry&ts=1700000000") ==
        "AAAAC3NzaC1lZDI1NTE5AAAAIAXUZTEIXnmlO2pDJEPs1Mq1KiAFmFOa+PU4A7gCSgf/:ec0aMaTgQ+"
        "jSNy41cvM01a7ec7KsgKn5TFNt0UCvWnxqUOQCavCBgBn9qMJWCdnconx3JNJhBqx1gR2+izCNDQ==");
}

TEST_CASE("SigningKey refuses broken keys at every length") {
  const std::string begin = kKey.substr(0, kKey.find('\n') + 1);
  const std::string end = kKey.substr(kKey.find("-----END"));
  std::string body = kKey.substr(begin.size(), kKey.size() - begin.size() - end.size());
  std::erase(body, '\n');
  for (size_t n = 0; n + 16 < body.size(); ++n) {
    CAPTURE(n);
    CHECK_THROWS_AS(SigningKey::parse(begin + body.substr(0, n) + end), Error);
  }
  CHECK_THROWS_AS(SigningKey::parse(""), Error);
  CHECK_THROWS_AS(SigningKey::parse(end + begin), Error);
}

TEST_CASE("parse_netrc finds a host's entry, else the default") {
  const std::string text =
      "# comment\nmachine a.example\n  login me password \"s e\\\"c\"\n"
      "macdef init\ncd /\n\nmachine b.example login you\naccount x password p2\ndefault login any "
      "password d";
  CHECK(parse_netrc(text, "a.example")->user == "me");
  CHECK(parse_netrc(text, "a.example")->password == "s e\"c");
  CHECK(parse_netrc(text, "b.example")->password == "p2");
  CHECK(parse_netrc(text, "c.example")->user == "any");
  CHECK(!parse_netrc("machine a.example login x", "c.example"));
  CHECK(!parse_netrc("machine", "c.example"));
  CHECK(!parse_netrc("", "c.example"));
}

TEST_CASE("base64 there and back") {
  for (const char* text : {"", "a", "ab", "abc", "abcd"}) {
    CHECK(base64_decode(base64_encode(text)) == text);
  }
  CHECK(basic_authorization({"x", "y"}) == "Authorization: Basic eDp5");
  CHECK(!base64_decode("abc"));
  CHECK(!base64_decode("ab-_"));
}

TEST_CASE("signed_url_expiry reads what storage servers write") {
  CHECK(signed_url_expiry("https://s/x?Expires=1700000000&Signature=x") == 1700000000);
  CHECK(signed_url_expiry("https://s/x?X-Amz-Date=20231114T221320Z&X-Amz-Expires=3600") ==
        1700000000 + 3600);
  CHECK(signed_url_expiry("https://s/x?X-Amz-Date=nonsense&X-Amz-Expires=3600") == 0);
  CHECK(signed_url_expiry("https://s/x?Expires=99999999999999999999") == 0);
  CHECK(signed_url_expiry("https://s/x") == 0);
  CHECK(signed_url_expiry("") == 0);
}

}  // namespace
}  // namespace dsctl::registry
