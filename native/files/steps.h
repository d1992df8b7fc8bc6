// Calls of the file system below one directory, in order, up to the first that fails: what a store does for one object, without a change
// of threads between them. No symbolic link is followed below the root, whoever plants one and whenever.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace rum::files {

// A file descriptor, closed with its owner.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  Descriptor& operator=(Descriptor&& other) noexcept;
  ~Descriptor() { Close(); }
  int fd() const { return fd_; }
  bool open() const { return fd_ >= 0; }
  void Close();

 private:
  int fd_;
};

enum class Call {
  kFolders,  // makes what is missing of `path`, each on disk in the one above it
  kMkdir,
  kWrite,    // `path` from `chunks`: it must not exist; on disk afterwards
  kSync,     // the names in the directory `path`
  kRename,   // `path` to `to`
  kLink,
  kUnlink,   // no error if it is gone
  kRemove,   // `path` with all that is in it
  kPrune,    // the directory `path` and those above it, as far as they are empty
  kNewest,   // finds the newest version of the object `path`, and of it the `bytes` from `offset` on
  kOlder,    // removes the versions below `number` in the directory `path`
  kList,     // names of the directories in `path`
};

// Paths are relative to the root; `root` itself is the empty one.
struct Step {
  Call call = Call::kSync;
  std::string path, to;
  std::vector<std::span<const uint8_t>> chunks;  // kWrite; borrowed
  int64_t offset = 0, bytes = -1;                // kNewest; -1: the file is not opened
  std::optional<std::string> expected;           // kNewest: ends the steps if it is another, as `incarnation/number`; empty: none
  int64_t number = 0;                            // kOlder
};

// A version of an object (engine/adapters/filesystem-object.ts).
struct Version {
  std::string incarnation;
  int64_t number = 0;
  int64_t size = -1;  // -1: the file was not opened
  double modified_ms = 0;
  std::vector<uint8_t> bytes;
};

// State between slices. Any thread, one at a time.
class Steps {
 public:
  Steps(std::string root, std::vector<Step> steps) : root_(std::move(root)), steps_(std::move(steps)) {}
  // Until all is done or `pause` says so, asked between calls. false: there is more to do.
  bool Advance(const std::function<bool()>& pause);

  // Of those that were done; the next one has failed with `error`, an errno, or found another version than expected if that is 0.
  size_t done() const { return done_; }
  int error() const { return error_; }
  bool root_missing() const { return root_missing_; }
  // One for each kNewest; nullopt: there is no such object.
  std::vector<std::optional<Version>> found;
  // Of the last kList.
  std::vector<std::string> folders;

 private:
  // false: the steps end here.
  bool Take(const Step& step);
  // An errno each.
  int Write(const Step& step);
  int Newest(const Step& step, std::optional<Version>* version);
  // The descriptor of a directory, kept for the next step; -1 with errno.
  int Directory(std::string_view path, bool make = false);
  // Of the directory that has `path`; its last part.
  int Above(const std::string& path, std::string* leaf);
  void Forget() { kept_.clear(); }

  std::string root_;
  std::vector<Step> steps_;
  size_t done_ = 0;
  int error_ = 0;
  bool root_missing_ = false;
  std::map<std::string, Descriptor, std::less<>> kept_;
};

}  // namespace rum::files
