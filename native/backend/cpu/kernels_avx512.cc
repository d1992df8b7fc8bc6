#if defined(__x86_64__)
#define RUM_LEVEL_AVX512
#define RUM_KERNELS Avx512Kernels
#define RUM_ISA Isa::kAvx512
#include "backend/cpu/kernels.inc.h"
#else
#include "backend/cpu/kernels.h"
const rum::Kernels* rum::Avx512Kernels() { return nullptr; }
#endif
