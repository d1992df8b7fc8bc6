#include "files/steps.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <memory>
#include <utility>

namespace rum::files {
namespace {

constexpr size_t kKeptMax = 32;  // of descriptors
constexpr int kOvertakenMax = 100;  // a reader is overtaken only by a writer between two calls; this often it is something else
constexpr int kDepthMax = 16;
constexpr int kDirectory = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

struct CloseDirectory {
  void operator()(DIR* directory) const { closedir(directory); }
};
using Entries = std::unique_ptr<DIR, CloseDirectory>;

int Sync(int fd) {
#ifdef F_FULLFSYNC
  if (fcntl(fd, F_FULLFSYNC) == 0) return 0;
#endif
  return fsync(fd);
}

// A link is told from a file: nobody means to have one here.
int OpenDirectory(int above, const char* name) {
  const int fd = openat(above, name, kDirectory);
  if (fd >= 0 || errno != ENOTDIR) return fd;
  struct stat info {};
  const bool link = fstatat(above, name, &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(info.st_mode);
  errno = link ? ELOOP : ENOTDIR;
  return -1;
}

// Of a directory that stays open beside.
Entries List(int fd) {
  const int own = openat(fd, ".", kDirectory);
  if (own < 0) return nullptr;
  DIR* const entries = fdopendir(own);
  if (entries == nullptr) close(own);
  return Entries(entries);
}

mode_t TypeOf(int fd, const dirent& entry) {
  if (entry.d_type == DT_DIR) return S_IFDIR;
  if (entry.d_type == DT_REG) return S_IFREG;
  if (entry.d_type != DT_UNKNOWN) return 0;
  struct stat info {};
  return fstatat(fd, entry.d_name, &info, AT_SYMLINK_NOFOLLOW) == 0 ? info.st_mode & S_IFMT : 0;
}

// Calls use(name, type) for each; an errno.
template <class F>
int Each(int fd, F&& use) {
  const Entries entries = List(fd);
  if (entries == nullptr) return errno;
  for (;;) {
    errno = 0;
    const dirent* const entry = readdir(entries.get());
    if (entry == nullptr) return errno;
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") use(name, TypeOf(fd, *entry));
  }
}

// 0: not the name of a version.
int64_t NumberOf(std::string_view name, mode_t type) {
  int64_t number = 0;
  if (type != S_IFREG || name.empty() || name.size() > 15 || name[0] == '0') return 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  return error == std::errc() && end == name.data() + name.size() && number > 0 ? number : 0;
}

int Remove(int above, const char* name, int depth) {
  if (unlinkat(above, name, 0) == 0 || errno == ENOENT) return 0;
  if (errno != EISDIR && errno != EPERM) return errno;
  if (depth == kDepthMax) return ELOOP;
  {
    const Descriptor directory(OpenDirectory(above, name));
    if (!directory.open()) return errno;
    std::vector<std::string> names;
    int error = Each(directory.fd(), [&](std::string_view each, mode_t) { names.emplace_back(each); });
    for (const std::string& each : names) {
      if (error == 0) error = Remove(directory.fd(), each.c_str(), depth + 1);
    }
    if (error != 0) return error;
  }
  return unlinkat(above, name, AT_REMOVEDIR) == 0 ? 0 : errno;
}

double ModifiedMs(const struct stat& info) {
#ifdef __APPLE__
  const timespec& time = info.st_mtimespec;
#else
  const timespec& time = info.st_mtim;
#endif
  return static_cast<double>(time.tv_sec) * 1e3 + static_cast<double>(time.tv_nsec) / 1e6;
}

}  // namespace

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  if (this != &other) {
    Close();
    fd_ = std::exchange(other.fd_, -1);
  }
  return *this;
}

void Descriptor::Close() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

bool Steps::Advance(const std::function<bool()>& pause) {
  while (done_ < steps_.size()) {
    if (kept_.size() > kKeptMax) Forget();
    if (!Take(steps_[done_])) break;
    ++done_;
    if (done_ < steps_.size() && pause()) return false;
  }
  Forget();
  return true;
}

bool Steps::Take(const Step& step) {
  const auto ended = [this](int error) {
    error_ = error;
    return error == 0;
  };
  if (step.call == Call::kWrite) return ended(Write(step));
  if (step.call == Call::kFolders || step.call == Call::kSync || step.call == Call::kOlder || step.call == Call::kList) {
    const int fd = Directory(step.path, step.call == Call::kFolders);
    if (fd < 0) return ended(errno);
    if (step.call == Call::kFolders) return ended(0);
    if (step.call == Call::kSync) return ended(Sync(fd) == 0 ? 0 : errno);
    if (step.call == Call::kList) {
      folders.clear();
      return ended(Each(fd, [&](std::string_view name, mode_t type) {
        if (type == S_IFDIR) folders.emplace_back(name);
      }));
    }
    std::vector<std::string> older;
    const int error = Each(fd, [&](std::string_view name, mode_t type) {
      const int64_t number = NumberOf(name, type);
      if (number > 0 && number < step.number) older.emplace_back(name);
    });
    for (const std::string& name : older) (void)unlinkat(fd, name.c_str(), 0);
    return ended(error);
  }
  if (step.call == Call::kNewest) {
    std::optional<Version> version;
    const int error = Newest(step, &version);
    if (error != 0) return ended(error);
    const bool other = step.expected.has_value() && *step.expected != (version ? version->incarnation + "/" + std::to_string(version->number) : std::string());
    found.push_back(std::move(version));
    return !other;
  }
  if (step.call == Call::kPrune) {
    for (std::string at = step.path; !at.empty();) {
      std::string leaf;
      const int above = Above(at, &leaf);
      if (above < 0 || unlinkat(above, leaf.c_str(), AT_REMOVEDIR) != 0) break;
      const size_t slash = at.rfind('/');
      at.resize(slash == std::string::npos ? 0 : slash);
    }
    Forget();
    return ended(0);
  }
  std::string leaf, leaf_to;
  const int above = Above(step.path, &leaf);
  if (above < 0) return ended(step.call == Call::kUnlink && errno == ENOENT ? 0 : errno);
  switch (step.call) {
    case Call::kMkdir: return ended(mkdirat(above, leaf.c_str(), 0777) == 0 ? 0 : errno);
    case Call::kUnlink: return ended(unlinkat(above, leaf.c_str(), 0) == 0 || errno == ENOENT ? 0 : errno);
    case Call::kRemove: {
      const int error = Remove(above, leaf.c_str(), 0);
      Forget();
      return ended(error);
    }
    default: break;
  }
  const int above_to = Above(step.to, &leaf_to);
  if (above_to < 0) return ended(errno);
  if (step.call == Call::kLink) return ended(linkat(above, leaf.c_str(), above_to, leaf_to.c_str(), 0) == 0 ? 0 : errno);
  const int error = renameat(above, leaf.c_str(), above_to, leaf_to.c_str()) == 0 ? 0 : errno;
  // What is kept goes by names, of which this has changed some.
  if (error == 0) Forget();
  return ended(error);
}

int Steps::Write(const Step& step) {
  std::string leaf;
  const int above = Above(step.path, &leaf);
  if (above < 0) return errno;
  const Descriptor file(openat(above, leaf.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666));
  if (!file.open()) return errno;
  for (std::span<const uint8_t> left : step.chunks) {
    while (!left.empty()) {
      const ssize_t written = write(file.fd(), left.data(), left.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return errno;
      left = left.subspan(static_cast<size_t>(written));
    }
  }
  return Sync(file.fd()) == 0 ? 0 : errno;
}

// The incarnation is the one directory of the object's, and the newest version its highest number. What is overtaken looks again.
int Steps::Newest(const Step& step, std::optional<Version>* out) {
  std::string leaf;
  const int above = Above(step.path, &leaf);
  if (above < 0) return errno == ENOENT ? 0 : errno;
  for (int tries = 0; tries < kOvertakenMax; ++tries) {
    const Descriptor object(OpenDirectory(above, leaf.c_str()));
    if (!object.open()) return errno == ENOENT ? 0 : errno;
    Version version;
    int error = Each(object.fd(), [&](std::string_view name, mode_t type) {
      if (type == S_IFDIR && version.incarnation.empty()) version.incarnation = name;
    });
    if (error != 0) return error;
    if (version.incarnation.empty()) return 0;
    const Descriptor home(OpenDirectory(object.fd(), version.incarnation.c_str()));
    if (!home.open() && errno != ENOENT) return errno;
    if (!home.open()) continue;
    error = Each(home.fd(), [&](std::string_view name, mode_t type) { version.number = std::max(version.number, NumberOf(name, type)); });
    if (error != 0) return error;
    if (version.number == 0) continue;
    if (step.bytes >= 0) {
      const Descriptor file(openat(home.fd(), std::to_string(version.number).c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
      if (!file.open() && errno != ENOENT) return errno;
      if (!file.open()) continue;
      struct stat info {};
      if (fstat(file.fd(), &info) != 0) return errno;
      version.size = info.st_size;
      version.modified_ms = ModifiedMs(info);
      version.bytes.resize(static_cast<size_t>(std::clamp<int64_t>(version.size - step.offset, 0, step.bytes)));
      size_t at = 0;
      while (at < version.bytes.size()) {
        const ssize_t got = pread(file.fd(), version.bytes.data() + at, version.bytes.size() - at, step.offset + static_cast<int64_t>(at));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return errno;
        if (got == 0) return EIO;  // it became shorter, which no version does
        at += static_cast<size_t>(got);
      }
    }
    *out = std::move(version);
    return 0;
  }
  // Somebody deleted its files: it is not there, whatever the folder says.
  return 0;
}

int Steps::Directory(std::string_view path, bool make) {
  if (const auto kept = kept_.find(path); kept != kept_.end()) return kept->second.fd();
  int fd = -1;
  if (path.empty()) {
    // Links above and at the root are its owner's choice.
    fd = open(root_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    root_missing_ = fd < 0 && errno == ENOENT;
  } else {
    const size_t slash = path.rfind('/');
    const int above = Directory(slash == std::string_view::npos ? std::string_view() : path.substr(0, slash), make);
    if (above < 0) return -1;
    const std::string leaf(slash == std::string_view::npos ? path : path.substr(slash + 1));
    fd = OpenDirectory(above, leaf.c_str());
    if (fd < 0 && errno == ENOENT && make) {
      if (mkdirat(above, leaf.c_str(), 0777) != 0 && errno != EEXIST) return -1;
      if (Sync(above) != 0) return -1;
      fd = OpenDirectory(above, leaf.c_str());
    }
  }
  if (fd < 0) return -1;
  kept_.emplace(path, Descriptor(fd));
  return fd;
}

int Steps::Above(const std::string& path, std::string* leaf) {
  const size_t slash = path.rfind('/');
  *leaf = slash == std::string::npos ? path : path.substr(slash + 1);
  return Directory(slash == std::string::npos ? std::string_view() : std::string_view(path).substr(0, slash));
}

}  // namespace rum::files
