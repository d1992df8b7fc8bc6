#if defined(__x86_64__)
#define RUM_LEVEL_AVX2
#define RUM_KERNELS Avx2Kernels
#define RUM_ISA Isa::kAvx2
#include "backend/cpu/kernels.inc.h"
#else
#include "backend/cpu/kernels.h"
const rum::Kernels* rum::Avx2Kernels() { return nullptr; }
#endif
