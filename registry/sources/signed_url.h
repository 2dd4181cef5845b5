// Signed URLs: what a storage server's link says of its own end.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "registry/download.h"

namespace dsctl::registry {

/// When a signed URL ends to be valid, in seconds of Unix time, from its query (Expires, or
/// X-Amz-Date with X-Amz-Expires); 0: it doesn't say.
int64_t signed_url_expiry(std::string_view url);

/// `url` as a place to download from, with its end of validity on the steady clock.
DownloadUrl signed_download_url(const std::string& url, std::vector<std::string> headers);

/// The steady clock's time in milliseconds that is `seconds` from now, a little before.
int64_t steady_ms_after(int64_t seconds);

}  // namespace dsctl::registry
