// Chooses the instruction-set level at run time. The level changes speed only, never a bit.
#include <cstdlib>
#include <string>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "backend/cpu/kernels.h"

namespace rum {
namespace {

#if defined(__x86_64__)
bool HasF16c() {  // clang's __builtin_cpu_supports does not know it
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

bool MachineHas(Isa isa) {
  switch (isa) {
    case Isa::kAuto:
    case Isa::kPortable: return true;
#if defined(__x86_64__)
    case Isa::kAvx2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && HasF16c();
    case Isa::kAvx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
    case Isa::kAvx2:
    case Isa::kAvx512: return false;
#endif
  }
  return false;
}

}  // namespace

const char* IsaName(Isa isa) {
  switch (isa) {
    case Isa::kAuto: return "auto";
    case Isa::kPortable: return "portable";
    case Isa::kAvx2: return "avx2";
    case Isa::kAvx512: return "avx512";
  }
  return "?";
}

Expected<Isa> ResolveIsa(Isa wanted) {
  if (wanted == Isa::kAuto) {
    const char* forced = std::getenv("RUMINATE_ISA");
    if (forced != nullptr && *forced != '\0' && std::string(forced) != "auto") {
      for (const Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512}) {
        if (std::string(forced) == IsaName(isa)) wanted = isa;
      }
      if (wanted == Isa::kAuto) {
        return Error(kErrOption, "RUMINATE_ISA must be auto, portable, avx2 or avx512; got \"" + std::string(forced) + "\".");
      }
    }
  }
  if (wanted == Isa::kAuto) {
    for (const Isa isa : {Isa::kAvx512, Isa::kAvx2}) {
      if (MachineHas(isa)) return isa;
    }
    return Isa::kPortable;
  }
  if (!MachineHas(wanted)) {
    return Error(kErrOption, std::string("This machine has no ") + IsaName(wanted) + "; choose another level or leave it to auto.");
  }
  return wanted;
}

const Kernels* KernelsFor(Isa isa) {
  switch (isa) {
    case Isa::kAvx2: return Avx2Kernels();
    case Isa::kAvx512: return Avx512Kernels();
    case Isa::kAuto:
    case Isa::kPortable: break;
  }
  return PortableKernels();
}

}  // namespace rum
