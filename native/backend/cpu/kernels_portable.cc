#define RUM_KERNELS PortableKernels
#define RUM_ISA Isa::kPortable
#include "backend/cpu/kernels.inc.h"
