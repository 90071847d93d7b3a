// Convolution on int8 tensor cores through wmma 16x16x16, all that sm_72 (Xavier) has.
//
// A block of 4 warps computes 64 pixels x BN outputs; a warp 32 pixels x BN/2 outputs. wmma wants both sides signed: an
// activation a is read as a - 128 (also beside the picture), and the host has added 128 x the sum of the weights to the bias.
// Memory: one slice, A 64 x 64 bytes and B BN x 64 bytes, as blocks of 16 x 16 bytes that lie whole, so that every wmma.load
// reads 256 bytes in a row; 32 bytes from block to block keep apart the banks of the four chunks that neighbours store at once.
// The next slice waits in registers while this one is multiplied.
#pragma once
#include "loads.cuh"

#define BLOCK (16 * CHUNK + 32)
#define A_BYTES (TILE_M / 16 * (SLICE / CHUNK) * BLOCK)
// Words from row to row of a warp's sums: 8 more than they are. Rows then begin in four groups of banks, so that four words at a
// time meet two to a bank, and every row is aligned as wmma.store wants it (32 bytes). The sums of a tile need more room than its slices.
template <int BN> struct Sums { enum { PITCH = BN / 2 + 8 }; };
#define SHARED_BYTES (THREADS * Sums<64>::PITCH * 4)

__device__ __forceinline__ void load_a(u32 (&r)[2], u32 from) {
    asm volatile("wmma.load.a.sync.aligned.row.m16n16k16.shared.s8 {%0, %1}, [%2], 16;"
                 : "=r"(r[0]), "=r"(r[1]) : "r"(from) : "memory");
}
__device__ __forceinline__ void load_b(u32 (&r)[2], u32 from) {
    asm volatile("wmma.load.b.sync.aligned.col.m16n16k16.shared.s8 {%0, %1}, [%2], 16;"
                 : "=r"(r[0]), "=r"(r[1]) : "r"(from) : "memory");
}
__device__ __forceinline__ void multiply(int* d, const u32 (&a)[2], const u32 (&b)[2]) {
    asm volatile("wmma.mma.sync.aligned.row.col.m16n16k16.s32.s8.s8.s32 {%0, %1, %2, %3, %4, %5, %6, %7}, {%8, %9}, {%10, %11}, "
                 "{%0, %1, %2, %3, %4, %5, %6, %7};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3]), "+r"(d[4]), "+r"(d[5]), "+r"(d[6]), "+r"(d[7])
                 : "r"(a[0]), "r"(a[1]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void store_sums(u32 to, const int* d, int pitch) {
    asm volatile("wmma.store.d.sync.aligned.row.m16n16k16.shared.s32 [%0], {%1, %2, %3, %4, %5, %6, %7, %8}, %9;"
                 ::"r"(to), "r"(d[0]), "r"(d[1]), "r"(d[2]), "r"(d[3]), "r"(d[4]), "r"(d[5]), "r"(d[6]), "r"(d[7]), "r"(pitch)
                 : "memory");
}
// Byte of a row's chunk: block (row / 16, chunk), row % 16 in it.
__device__ __forceinline__ int blocked(int row, int chunk) { return ((row >> 4) * 4 + chunk) * BLOCK + (row & 15) * CHUNK; }

__device__ __forceinline__ uint4 as_signed(uint4 v) {
    return make_uint4(v.x ^ 0x80808080u, v.y ^ 0x80808080u, v.z ^ 0x80808080u, v.w ^ 0x80808080u);
}

template <int BN, bool WIDE>
__device__ __forceinline__ void convolve(const Job& job, int block, const Buffers& on, u8* shared) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int warp_m = (warp >> 1) * 32, warp_n = (warp & 1) * (BN / 2);
    const int NS = BN / 32;   // blocks of 16 outputs in a warp
    const u32 base = (u32)__cvta_generic_to_shared(shared);
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

    int sums[2 * NS * 8];
    #pragma unroll
    for (int i = 0; i < 2 * NS * 8; i++) sums[i] = 0;
    if (tile.count > 0) load();
    for (int slice = 0; slice < tile.count; slice++) {
        __syncthreads();   // all are done with the slice before
        #pragma unroll
        for (int i = 0; i < 2; i++)
            *reinterpret_cast<uint4*>(shared + blocked(loads.row + 32 * i, loads.chunk)) = as_signed(next_a[i]);
        #pragma unroll
        for (int i = 0; i < loads.OUTPUTS; i++)
            *reinterpret_cast<uint4*>(shared + A_BYTES + blocked(loads.row + 32 * i, loads.chunk)) = next_b[i];
        __syncthreads();
        if (slice + 1 < tile.count) load();
        const int left = job.products - (tile.first + slice) * SLICE;
        #pragma unroll
        for (int k = 0; k < SLICE / 16; k++) {
            if (k * 16 >= left) break;
            u32 a[2][2], b[NS][2];
            #pragma unroll
            for (int i = 0; i < 2; i++) load_a(a[i], base + blocked(warp_m + 16 * i, k));
            #pragma unroll
            for (int j = 0; j < NS; j++) load_b(b[j], base + A_BYTES + blocked(warp_n + 16 * j, k));
            #pragma unroll
            for (int i = 0; i < 2; i++)
                #pragma unroll
                for (int j = 0; j < NS; j++) multiply(sums + (i * NS + j) * 8, a[i], b[j]);
        }
    }
    if (job.splits > 1 && !join(job, on, tile, sums)) return;
    __syncthreads();   // all are done with the slices, which make room for the sums

    // How a fragment lies in registers is the hardware's own affair: sums go through shared memory to be requantised. A warp
    // writes and reads its own 32 x BN/2 of them.
    const int PITCH = Sums<BN>::PITCH;
    int* area = reinterpret_cast<int*>(shared) + warp * 32 * PITCH;
    #pragma unroll
    for (int i = 0; i < 2; i++)
        #pragma unroll
        for (int j = 0; j < NS; j++)
            store_sums((u32)__cvta_generic_to_shared(area + i * 16 * PITCH + j * 16), sums + (i * NS + j) * 8, PITCH);
    __syncwarp();
    const int pixels = job.out_height * job.out_width;
    // A thread has 16 outputs of a pixel at a time: 16 bytes.
    for (int i = lane; i < 32 * NS; i += 32) {
        int r = i / NS, column = (i - r * NS) * CHUNK;
        int pixel = tile.m * TILE_M + warp_m + r, output = tile.n * BN + warp_n + column;
        u32 words[4];
        #pragma unroll
        for (int w = 0; w < 4; w++) {
            const int4 sum = *reinterpret_cast<const int4*>(area + r * PITCH + column + 4 * w);
            const int four[4] = {sum.x, sum.y, sum.z, sum.w};
            words[w] = 0;
            #pragma unroll
            for (int k = 0; k < 4; k++) {
                int at = job.scales + output + 4 * w + k;
                words[w] |= (u32)to_byte(four[k] + on.bias[at], on.multiplier[at]) << (8 * k);
            }
        }
        if (pixel >= pixels) continue;
        u8* to = on.arena + job.to + (size_t)pixel * job.to_step + output;
        if (job.wide_to && output + CHUNK <= job.outputs) {
            *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
        } else {
            #pragma unroll
            for (int j = 0; j < CHUNK; j++)
                if (output + j < job.outputs) to[j] = words[j / 4] >> (8 * (j % 4));
        }
    }
}
