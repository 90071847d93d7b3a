// All kernels of the engine in one module.
#include "steps.cu"
#include "prepare.cu"
#include "explain.cu"
