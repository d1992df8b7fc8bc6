// The test harness of native/: checks that report and go on, tests that are functions named by a sentence. Not thread-safe.
//
//   void Rejects() { CHECK(f() == 1); CHECK_OK(Open(path)); }
//   int main() { return rum::test::RunAll({{"a truncated file is refused", Rejects}}); }
#pragma once
#include <cstdio>
#include <initializer_list>
#include <string>

#include "core/status.h"

namespace rum::test {

struct Test {
  const char* name;  // a promise in a sentence
  void (*run)();
};

inline int failed_checks = 0;  // of the test that is running

inline bool Check(bool passed, const char* text, const char* file, int line) {
  if (!passed) {
    ++failed_checks;
    std::printf("    %s:%d: CHECK failed: %s\n", file, line, text);
  }
  return passed;
}

inline const Status& StatusOf(const Status& status) { return status; }
template <class T>
const Status& StatusOf(const Expected<T>& expected) {
  return expected.status();
}

inline bool CheckOk(const Status& status, const char* text, const char* file, int line) {
  if (!status.ok()) {
    ++failed_checks;
    std::printf("    %s:%d: CHECK_OK failed: %s: %s: %s\n", file, line, text, status.code, status.message.c_str());
  }
  return status.ok();
}

// Runs all, prints a line for each and the count; the exit code of main.
inline int RunAll(std::initializer_list<Test> tests) {
  int passed = 0, failed = 0;
  for (const Test& test : tests) {
    failed_checks = 0;
    test.run();
    std::printf("%s  %s\n", failed_checks == 0 ? "ok    " : "FAILED", test.name);
    std::fflush(stdout);
    ++(failed_checks == 0 ? passed : failed);
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}

// What a test program of this project is given; set by RunAllWithDirs.
inline std::string fixtures, models;

// main of a test that reads them: FIXTURES_DIR MODELS_DIR.
inline int RunAllWithDirs(int argc, char** argv, std::initializer_list<Test> tests) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s FIXTURES_DIR MODELS_DIR\n", argv[0]);
    return 2;
  }
  fixtures = argv[1];
  models = argv[2];
  return RunAll(tests);
}

}  // namespace rum::test

// Both give whether the check passed, so that a test can stop: if (!CHECK_OK(model)) return;
#define CHECK(condition) ::rum::test::Check(static_cast<bool>(condition), #condition, __FILE__, __LINE__)
#define CHECK_OK(expression) ::rum::test::CheckOk(::rum::test::StatusOf(expression), #expression, __FILE__, __LINE__)
