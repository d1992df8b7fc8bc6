// Any bytes as a GGUF file: metadata and tensor table; what passes is opened as a model and as a tokenizer.
#include <fcntl.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "model/gguf.h"
#include "model/gguf_model.h"
#include "model/gguf_tokenizer.h"

namespace {

// In memory where the system has it: the loaders map files.
const std::string& FilePath() {
  static const std::string path = [] {
    const char* directory = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    return std::string(directory) + "/ruminate-fuzz-" + std::to_string(getpid()) + ".gguf";
  }();
  return path;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace rum;
  const auto header = ParseGgufHeader({data, size}, "fuzz");
  if (!header.ok()) return 0;
  const int file = open(FilePath().c_str(), O_CREAT | O_TRUNC | O_WRONLY, 0600);
  if (file < 0 || write(file, data, size) != static_cast<ssize_t>(size)) std::abort();
  close(file);
  (void)OpenGguf(FilePath(), {}).ok();
  (void)ReadGgufTokenizer(FilePath()).ok();
  unlink(FilePath().c_str());
  return 0;
}
