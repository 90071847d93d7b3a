// The kernel that runs the plan: one launch for all steps that do not wait for each other. Around it the picture's preparation and
// explanation.
// Here and not below, where one architecture alone would have it.
#include "loads.cuh"
#if __CUDA_ARCH__ >= 800
#include "convolve_mma.cuh"
#elif __CUDA_ARCH__ >= 720
#include "convolve_wmma.cuh"
#else
#include "convolve_plain.cuh"
#endif
#include "pool.cuh"
#include "prepare.cuh"
#include "explain.cuh"
#include "light.cuh"

// Four blocks fit a multiprocessor (128 registers a thread). Without the number ptxas saves registers for sm_110 until it spills.
extern "C" __global__ void __launch_bounds__(THREADS, 4) steps(
    const Job* __restrict__ jobs, int count, u8* arena, const s8* weights, const int* bias, const float* multiplier, int* partial,
    u32* tickets) {
    __shared__ __align__(256) u8 shared[SHARED_BYTES];
    const Buffers on = {arena, weights, bias, multiplier, partial, tickets};
    int number = 0, first = 0;
    while (number + 1 < count && (int)blockIdx.x >= jobs[number].end) first = jobs[number++].end;
    const Job& job = jobs[number];
    const int block = blockIdx.x - first;
    switch (job.kind) {
        case CONVOLUTION_64: convolve<64, true>(job, block, on, shared); break;
        case CONVOLUTION_32: convolve<32, true>(job, block, on, shared); break;
        case GATHERED: convolve<32, false>(job, block, on, shared); break;
        case MAXIMUM: pool<true>(job, block, on); break;
        case MEAN: pool<false>(job, block, on); break;
    }
}
