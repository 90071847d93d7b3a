// Convolution without tensor cores: dp4a (sm_61, sm_62: TX2), else products of 16 bits (sm_53: Nano).
//
// A block of 128 threads computes 64 pixels x BN outputs; a thread RM pixels x 4 outputs (RM 8 at BN = 64, 4 at BN = 32).
// Memory: one slice, turned so that a row holds the same place of the sum for all pixels: with dp4a 16 rows of words (four
// bytes of the sum each), without 32 rows of words (two bytes, widened to 16 bits). A thread reads its pixels and outputs as
// vectors of four words; rows are 4 words longer than they need to be, which makes stores collide two by two at most. The next
// slice waits in registers while this one is multiplied.
#pragma once
#include "job.cuh"

#if __CUDA_ARCH__ >= 610
#define ROWS (SLICE / 4)
#else
#define ROWS (SLICE / 2)
#endif
#define SHARED_BYTES (ROWS * (TILE_M + 4 + 64 + 4) * 4)

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

// Puts four words of a row's chunk where the loop reads them.
template <bool SIGNED>
__device__ __forceinline__ void put(u32* to, int pitch, int chunk, int column, uint4 v) {
    const u32 words[4] = {v.x, v.y, v.z, v.w};
    #pragma unroll
    for (int i = 0; i < 4; i++) {
#if __CUDA_ARCH__ >= 610
        to[(chunk * 4 + i) * pitch + column] = words[i];
#else
        // Two bytes each, with their sign (selectors from 8 repeat the sign) or with zeros (4 is a byte of the 0).
        to[(chunk * 8 + 2 * i) * pitch + column] = permuted(words[i], SIGNED ? 0x9180 : 0x4140);
        to[(chunk * 8 + 2 * i + 1) * pitch + column] = permuted(words[i], SIGNED ? 0xB3A2 : 0x4342);
#endif
    }
}

template <int BN, bool WIDE>
__device__ __forceinline__ void convolve(const Job& job, int block, const Buffers& on, u8* shared) {
    const int RM = BN / 8, PITCH_A = TILE_M + 4, PITCH_B = BN + 4;
    const int t = threadIdx.x, tx = t % (BN / 4), ty = t / (BN / 4);
    u32* const a = reinterpret_cast<u32*>(shared);
    u32* const b = a + ROWS * PITCH_A;
    Tile tile;
    tile.start(job, block);

    const int chunk = t & 3, row = t >> 2;   // as in convolve_mma.cuh
    Walk walk[2];
    walk[0].start(job, tile.m * TILE_M + row);
    walk[1].start(job, tile.m * TILE_M + row + 32);
    int product = tile.first * SLICE + chunk * CHUNK;
    Place place;
    place.start(job, product);
    const int slices = (job.products + SLICE - 1) / SLICE;
    const s8* weights = on.weights + job.weights + ((size_t)tile.n * slices + tile.first) * BN * SLICE + t * CHUNK;
    uint4 next_a[2], next_b[BN / 32];

    auto load = [&]() {
        #pragma unroll
        for (int i = 0; i < 2; i++) {
            next_a[i] = make_uint4(0, 0, 0, 0);
            if (WIDE) {
                int at = place.tap_y < job.kernel_height ? walk[i].at(job, place.tap_y, place.tap_x) : -1;
                if (at >= 0) next_a[i] = *reinterpret_cast<const uint4*>(on.arena + at + place.channel);
            } else {
                next_a[i] = gather(job, on.arena, walk[i], product);
            }
        }
        #pragma unroll
        for (int i = 0; i < BN / 32; i++) next_b[i] = *reinterpret_cast<const uint4*>(weights + i * 32 * SLICE);
        weights += BN * SLICE;
        product += SLICE;
        place.next(job);
    };

    int sums[RM * 4];
    #pragma unroll
    for (int i = 0; i < RM * 4; i++) sums[i] = 0;
    if (tile.count > 0) load();
    for (int slice = 0; slice < tile.count; slice++) {
        __syncthreads();   // all are done with the slice before
        #pragma unroll
        for (int i = 0; i < 2; i++) put<false>(a, PITCH_A, chunk, row + 32 * i, next_a[i]);
        #pragma unroll
        for (int i = 0; i < BN / 32; i++) put<true>(b, PITCH_B, chunk, row + 32 * i, next_b[i]);
        __syncthreads();
        if (slice + 1 < tile.count) load();
        const int left = min(SLICE, job.products - (tile.first + slice) * SLICE);
        const int rows = (left * ROWS + SLICE - 1) / SLICE;
        #pragma unroll 4
        for (int k = 0; k < rows; k++) {
            u32 wa[RM], wb[4];
            #pragma unroll
            for (int i = 0; i < RM; i += 4)
                *reinterpret_cast<uint4*>(wa + i) = *reinterpret_cast<const uint4*>(a + k * PITCH_A + ty * RM + i);
            *reinterpret_cast<uint4*>(wb) = *reinterpret_cast<const uint4*>(b + k * PITCH_B + tx * 4);
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
