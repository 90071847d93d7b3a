// Convolution on int8 tensor cores, sm_80 and up: mma.m16n8k32 fed by cp.async and ldmatrix.
//
// A block of 4 warps computes 64 pixels x BN outputs. Memory: STAGES stages of a slice each, A 64 rows x 64 bytes (pixels) and
// B BN rows x 64 bytes (outputs), 32 KB in all at BN = 64; three slices are on their way while one is multiplied. In a row of
// 64 bytes chunk c lies at c ^ (row / 2 % 4): the eight rows that ldmatrix reads at a time then touch each bank once.
// Warps stand 2 x 2; each has 32 pixels x BN/2 outputs as 2 x BN/16 fragments of 16 x 8.
#pragma once
#include "loads.cuh"

#define STAGES 4
#define A_BYTES (TILE_M * SLICE)
#define SHARED_BYTES (STAGES * (A_BYTES + 64 * SLICE))

// Copies 16 bytes to shared memory behind the thread's back, zeros where `here` is false.
__device__ __forceinline__ void copy_async(u32 to, const void* from, bool here) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(here ? 16 : 0) : "memory");
}
__device__ __forceinline__ void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until all but the last N groups of this thread's copies have arrived.
template <int N> __device__ __forceinline__ void copies_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
__device__ __forceinline__ void load_matrices(u32 (&r)[4], u32 from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(from) : "memory");
}
__device__ __forceinline__ void multiply(int* d, const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// Byte of a row's chunk in a stage.
__device__ __forceinline__ int swizzled(int row, int chunk) { return row * SLICE + ((chunk ^ (row >> 1 & 3)) * CHUNK); }

template <int BN, bool WIDE>
__device__ __forceinline__ void convolve(const Job& job, int block, const Buffers& on, u8* shared) {
    const int t = threadIdx.x, lane = t & 31, warp = t >> 5;
    const int warp_m = (warp >> 1) * 32, warp_n = (warp & 1) * (BN / 2);
    const int STAGE = A_BYTES + BN * SLICE, NS = BN / 16;   // NS: fragments of 8 outputs in a warp
    const u32 base = (u32)__cvta_generic_to_shared(shared);
    Tile tile;
    tile.start(job, block);

    Loads<BN, WIDE> loads;
    loads.start(job, on, tile);

    auto load = [&](int stage) {
        const u32 a = base + stage * STAGE, b = a + A_BYTES;
        #pragma unroll
        for (int i = 0; i < 2; i++) {
            const int to = swizzled(loads.row + 32 * i, loads.chunk);
            if (WIDE) {
                const int from = loads.at(job, i);
                copy_async(a + to, on.arena + max(from, 0), from >= 0);
            } else {
                *reinterpret_cast<uint4*>(shared + stage * STAGE + to) = loads.pixel(job, on, i);
            }
        }
        #pragma unroll
        for (int i = 0; i < loads.OUTPUTS; i++)
            copy_async(b + swizzled(loads.row + 32 * i, loads.chunk), loads.output(i), true);
        loads.next(job);
    };

    int sums[2 * NS * 4];
    #pragma unroll
    for (int i = 0; i < 2 * NS * 4; i++) sums[i] = 0;
    #pragma unroll 1
    for (int stage = 0; stage < STAGES - 1; stage++) {
        if (stage < tile.count) load(stage);
        copies_commit();
    }
    // Rows and chunks that this lane names to ldmatrix: of A the four 8x8 blocks (rows 0-7, 8-15) x (16 bytes, 16 bytes),
    // of B (16 bytes, 16 bytes) x (outputs 0-7, 8-15).
    const int a_row = warp_m + (lane & 15), a_chunk = lane >> 4;
    const int b_row = warp_n + (lane & 7) + (lane >> 4) * 8, b_chunk = lane >> 3 & 1;
    for (int slice = 0; slice < tile.count; slice++) {
        copies_wait<STAGES - 2>();
        // One barrier does for both: the slice has arrived for all, and all are done with the stage that is loaded next.
        __syncthreads();
        if (slice + STAGES - 1 < tile.count) load((slice + STAGES - 1) % STAGES);
        copies_commit();
        const u32 a = base + (slice % STAGES) * STAGE, b = a + A_BYTES;
        const int left = job.products - (tile.first + slice) * SLICE;
        #pragma unroll
        for (int half = 0; half < 2; half++) {
            if (half * 32 >= left) break;   // the last slice may be half empty
            u32 fa[2][4], fb[NS / 2][4];
            #pragma unroll
            for (int i = 0; i < 2; i++) load_matrices(fa[i], a + swizzled(a_row + 16 * i, half * 2 + a_chunk));
            #pragma unroll
            for (int j = 0; j < NS / 2; j++) load_matrices(fb[j], b + swizzled(b_row + 16 * j, half * 2 + b_chunk));
            #pragma unroll
            for (int i = 0; i < 2; i++)
                #pragma unroll
                for (int j = 0; j < NS; j++)
                    multiply(sums + (i * NS + j) * 4, fa[i], fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]);
        }
    }
    copies_wait<0>();
    if (job.splits > 1 && !join(job, on, tile, sums)) return;
    __syncthreads();   // all are done with the stages, which now take the bytes

    const int g = lane >> 2, pair = (lane & 3) * 2;
    #pragma unroll
    for (int j = 0; j < NS; j++) {
        const int column = warp_n + j * 8 + pair, output = job.scales + tile.n * BN + column;
        const int b0 = on.bias[output], b1 = on.bias[output + 1];
        const float m0 = on.multiplier[output], m1 = on.multiplier[output + 1];
        #pragma unroll
        for (int i = 0; i < 4; i++) {   // rows g, g + 8, g + 16, g + 24
            const int* s = sums + ((i / 2) * NS + j) * 4 + i % 2 * 2;
            int two = to_byte(s[0] + b0, m0) | to_byte(s[1] + b1, m1) << 8;
            *reinterpret_cast<unsigned short*>(shared + (warp_m + g + 8 * i) * Finished<BN>::PITCH + column) = two;
        }
    }
    __syncthreads();
    store<BN>(job, on, tile, shared);
}
