// Convolution without tensor cores: dp4a (sm_61, sm_62: TX2), else products of 16 bits (sm_53: Nano).
//
// A block of 128 threads computes 64 pixels x BN outputs; a thread RM pixels x 4 outputs (RM 8 at BN = 64, 4 at BN = 32).
// Memory: one slice, turned so that a row holds the same place of the sum for all pixels: with dp4a 16 rows of words (four
// bytes of the sum each), without 32 rows of words (two bytes, widened to 16 bits). A thread reads its pixels and outputs as
// vectors of four words. Behind the rows of each chunk of 16 bytes lie 8 words that nothing uses: the four chunks of a pixel,
// which four neighbours store at once, then begin in different banks. The next slice waits in registers while this one is
// multiplied.
#pragma once
#include "loads.cuh"

#if __CUDA_ARCH__ >= 610
#define CHUNK_ROWS (CHUNK / 4)
#else
#define CHUNK_ROWS (CHUNK / 2)
#endif
#define SHARED_BYTES (SLICE / CHUNK * (CHUNK_ROWS * (TILE_M + 64) + 2 * 8) * 4)

#if __CUDA_ARCH__ >= 610
// Four products of unsigned and signed bytes; CUDA C has the instruction only for sides alike.
__device__ __forceinline__ void multiply(int& sum, u32 a, u32 b) {
    asm("dp4a.u32.s32 %0, %1, %2, %0;" : "+r"(sum) : "r"(a), "r"(b));
}
#else
// Maxwell multiplies 16 bits by 16 bits and adds 32 in one instruction (XMAD), 32 by 32 bits in three.
__device__ __forceinline__ void multiply(int& sum, short a, short b) {
    asm("mad.wide.s16 %0, %1, %2, %0;" : "+r"(sum) : "h"(a), "h"(b));
}
__device__ __forceinline__ void halves(short& low, short& high, u32 word) {
    asm("mov.b32 {%0, %1}, %2;" : "=h"(low), "=h"(high) : "r"(word));
}
__device__ __forceinline__ u32 permuted(u32 word, u32 how) {
    u32 out;
    asm("prmt.b32 %0, %1, 0, %2;" : "=r"(out) : "r"(word), "r"(how));
    return out;
}
#endif

// First word of the rows of a chunk, where a row has `pitch` words.
__device__ __forceinline__ int rows_of(int chunk, int pitch) { return chunk * (CHUNK_ROWS * pitch + 8); }

// Puts four words of a pixel's (or an output's) chunk where the loop reads them.
template <bool SIGNED>
__device__ __forceinline__ void put(u32* to, int pitch, int chunk, int column, uint4 v) {
    const u32 words[4] = {v.x, v.y, v.z, v.w};
    to += rows_of(chunk, pitch) + column;
    #pragma unroll
    for (int i = 0; i < 4; i++) {
#if __CUDA_ARCH__ >= 610
        to[i * pitch] = words[i];
#else
        // Two bytes each, with their sign (selectors from 8 repeat the sign) or with zeros (4 is a byte of the 0).
        to[2 * i * pitch] = permuted(words[i], SIGNED ? 0x9180 : 0x4140);
        to[(2 * i + 1) * pitch] = permuted(words[i], SIGNED ? 0xB3A2 : 0x4342);
#endif
    }
}

template <int BN, bool WIDE>
__device__ __forceinline__ void convolve(const Job& job, int block, const Buffers& on, u8* shared) {
    const int RM = BN / 8;
    const int t = threadIdx.x, tx = t % (BN / 4), ty = t / (BN / 4);
    u32* const a = reinterpret_cast<u32*>(shared);
    u32* const b = a + rows_of(SLICE / CHUNK, TILE_M);
    Tile tile;
    tile.start(job, block);

    Loads<BN, WIDE> loads;
    loads.start(job, on, tile);
    uint4 next_a[2], next_b[loads.OUTPUTS];

    auto load = [&]() {
        #pragma unroll
        for (int i = 0; i < 2; i++) next_a[i] = loads.pixel(job, on, i);
        #pragma unroll
        for (int i = 0; i < loads.OUTPUTS; i++) next_b[i] = *reinterpret_cast<const uint4*>(loads.output(i));
        loads.next(job);
    };

    int sums[RM * 4];
    #pragma unroll
    for (int i = 0; i < RM * 4; i++) sums[i] = 0;
    if (tile.count > 0) load();
    for (int slice = 0; slice < tile.count; slice++) {
        __syncthreads();   // all are done with the slice before
        #pragma unroll
        for (int i = 0; i < 2; i++) put<false>(a, TILE_M, loads.chunk, loads.row + 32 * i, next_a[i]);
        #pragma unroll
        for (int i = 0; i < loads.OUTPUTS; i++) put<true>(b, BN, loads.chunk, loads.row + 32 * i, next_b[i]);
        __syncthreads();
        if (slice + 1 < tile.count) load();
        const int left = min(SLICE, job.products - (tile.first + slice) * SLICE);
        const int chunks = (left + CHUNK - 1) / CHUNK;
        #pragma unroll 1
        for (int chunk = 0; chunk < chunks; chunk++) {
            const u32* const rows_a = a + rows_of(chunk, TILE_M) + ty * RM;
            const u32* const rows_b = b + rows_of(chunk, BN) + tx * 4;
            #pragma unroll 4
            for (int k = 0; k < CHUNK_ROWS; k++) {
                u32 wa[RM], wb[4];
                #pragma unroll
                for (int i = 0; i < RM; i += 4)
                    *reinterpret_cast<uint4*>(wa + i) = *reinterpret_cast<const uint4*>(rows_a + k * TILE_M + i);
                *reinterpret_cast<uint4*>(wb) = *reinterpret_cast<const uint4*>(rows_b + k * BN);
#if __CUDA_ARCH__ >= 610
                #pragma unroll
                for (int i = 0; i < RM; i++)
                    #pragma unroll
                    for (int j = 0; j < 4; j++) multiply(sums[i * 4 + j], wa[i], wb[j]);
#else
                short b0[4], b1[4];
                #pragma unroll
                for (int j = 0; j < 4; j++) halves(b0[j], b1[j], wb[j]);
                #pragma unroll
                for (int i = 0; i < RM; i++) {
                    short a0, a1;
                    halves(a0, a1, wa[i]);
                    #pragma unroll
                    for (int j = 0; j < 4; j++) multiply(sums[i * 4 + j], a0, b0[j]);
                    #pragma unroll
                    for (int j = 0; j < 4; j++) multiply(sums[i * 4 + j], a1, b1[j]);
                }
#endif
            }
        }
    }
    if (job.splits > 1 && !join(job, on, tile, sums)) return;
    __syncthreads();   // all are done with the slice, which makes room for the bytes

    const int output = job.scales + tile.n * BN + tx * 4;
    int bias[4];
    float multiplier[4];
    #pragma unroll
    for (int j = 0; j < 4; j++) {
        bias[j] = on.bias[output + j];
        multiplier[j] = on.multiplier[output + j];
    }
    #pragma unroll
    for (int i = 0; i < RM; i++) {
        u32 word = 0;
        #pragma unroll
        for (int j = 0; j < 4; j++) word |= (u32)to_byte(sums[i * 4 + j] + bias[j], multiplier[j]) << (8 * j);
        *reinterpret_cast<u32*>(shared + (ty * RM + i) * Finished<BN>::PITCH + tx * 4) = word;
    }
    __syncthreads();
    store<BN>(job, on, tile, shared);
}
