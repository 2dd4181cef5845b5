// Names that servers give to files: checked before anything is made of them.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace dsctl::registry {

/// `path` if it is the name of a file inside a repository: relative, '/'-separated, valid UTF-8, no
/// empty, "." or ".." part, nothing below ".git" or ".dsctl", no control characters or backslashes,
/// parts of at most 255 bytes. Throws Error naming `where` it came from.
std::string checked_remote_path(std::string_view path, std::string_view where);

/// `root`/`path` after making the directories on the way. Throws Error when one of them is a
/// symbolic link (which a hostile repository could have brought), or no directory.
std::filesystem::path local_path_below(const std::filesystem::path& root, const std::string& path);

/// `text` fit for a message: control characters and broken bytes as '?', at most 200 bytes.
std::string printable_text(std::string_view text);

}  // namespace dsctl::registry
