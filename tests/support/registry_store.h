// Help for tests of the model store: files, specs and what lies on disk.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "registry/registry.h"

namespace dsctl::tests {

void write_file(const std::filesystem::path& path, const std::string& content);
std::string read_file(const std::filesystem::path& path);

/// Names in blobs/ apart from the blobs themselves: what a crash left behind.
std::vector<std::string> leftovers(const std::filesystem::path& root);
size_t n_blobs(const std::filesystem::path& root);

/// A spec with these files as weights.
registry::CreateSpec spec_of(const std::vector<std::filesystem::path>& files);

/// Throws unless every model that is listed loads and every blob is what its name says.
void check_store(const std::filesystem::path& root);

}  // namespace dsctl::tests
