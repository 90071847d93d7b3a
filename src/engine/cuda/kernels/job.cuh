// What a block is told: one step of the plan (or its share of one), and the buffers that all steps work on.
//
// A launch computes all steps that do not wait for each other: its jobs lie one behind the other in `jobs`, and a block
// finds its own by the blocks before it. So the 94 convolutions and the pools of InceptionV3 need some fifty launches, and
// small steps fill the multiprocessors together.
#pragma once

typedef unsigned char u8;
typedef signed char s8;
typedef unsigned int u32;

#define THREADS 128   // of every block that computes a step
#define TILE_M 64     // output pixels of a tile
#define SLICE 64      // bytes of the sum's direction (taps x channels) that are loaded at once
#define CHUNK 16      // bytes of one vector load; a slice has four of them

// Convolutions in tiles of 64 or 32 outputs; GATHERED in tiles of 32, its input read byte by byte.
enum Kind { CONVOLUTION_64 = 0, CONVOLUTION_32 = 1, GATHERED = 2, MAXIMUM = 3, MEAN = 4 };

// The same words as `Job` in ../schedule.rs.
struct Job {
    int kind;
    int end;                            // blocks of the launch up to and with this job's
    int from, to;                       // first byte read and written in the arena
    int height, width, channels, from_step;         // picture read; from_step: bytes from pixel to pixel
    int out_height, out_width, outputs, to_step;    // picture written
    int kernel_height, kernel_width, stride_y, stride_x, pad_y, pad_x;
    int products;                       // taps x channels: products in a sum
    int weights;                        // first byte of the packed weights
    int scales;                         // first of its biases and multipliers
    int tiles_n, splits;                // tiles across the outputs; blocks that share the sum of a tile
    int partial, ticket;                // first partial sum and first ticket, where splits > 1
    int wide_from, wide_to;             // 1 where pixels are read (pools) and written in aligned chunks of 16 bytes
};

struct Buffers {
    u8* arena;                // all tensors, [row, column, channel]
    const s8* weights;        // [tile of outputs][slice][output][SLICE bytes], zeros beyond the last output and product
    const int* bias;          // padded to whole tiles
    const float* multiplier;  // padded to whole tiles; of pools: for each count of pixels
    int* partial;             // partial sums of shared tiles
    u32* tickets;             // how many blocks have put down their partial sums; 0 between launches
};

// The byte of the value `acc` times `m`: clamp(round half to even(float(acc) * m), 0, 255). One conversion, one product, one
// rounding: compiled without contraction (-fmad=false), as there is nothing that may be fused.
__device__ __forceinline__ int to_byte(int acc, float m) {
    return max(0, min(255, __float2int_rn(__fmul_rn(__int2float_rn(acc), m))));
}

// Which output pixel of the tile each thread gathers for, where its window begins, and how far along the sum it is.
struct Walk {
    int y, x;         // row and column of the window's first tap; far outside for pixels beyond the last
    __device__ __forceinline__ void start(const Job& job, int pixel) {
        int row = pixel / job.out_width;
        y = row * job.stride_y - job.pad_y;
        x = (pixel - row * job.out_width) * job.stride_x - job.pad_x;
        if (row >= job.out_height) y = -(1 << 24);
    }
    // Place of the pixel under a tap, or -1 beside the picture.
    __device__ __forceinline__ int at(const Job& job, int tap_y, int tap_x) const {
        int row = y + tap_y, column = x + tap_x;
        bool inside = row >= 0 && row < job.height && column >= 0 && column < job.width;
        return inside ? job.from + (row * job.width + column) * job.from_step : -1;
    }
};

// A place in the sum: tap and channel of a chunk's first byte. It moves on a slice at a time, without divisions.
struct Place {
    int tap_y, tap_x, channel;
    __device__ __forceinline__ void start(const Job& job, int product) {
        int tap = product / job.channels;
        channel = product - tap * job.channels;
        tap_y = tap / job.kernel_width;
        tap_x = tap - tap_y * job.kernel_width;
    }
    __device__ __forceinline__ void next(const Job& job) {
        channel += SLICE;
        while (channel >= job.channels) {
            channel -= job.channels;
            if (++tap_x == job.kernel_width) { tap_x = 0; ++tap_y; }
        }
    }
};

// 16 bytes of the sum's direction, byte by byte: for inputs whose pixels are no whole chunks (the first layer has one channel).
__device__ __forceinline__ uint4 gather(const Job& job, const u8* arena, const Walk& walk, int product) {
    u32 words[4];
    #pragma unroll
    for (int w = 0; w < 4; w++) {
        words[w] = 0;
        #pragma unroll 1
        for (int i = 0; i < 4; i++, product++) {
            if (product >= job.products) break;
            int tap = product / job.channels, tap_y = tap / job.kernel_width;
            int place = walk.at(job, tap_y, tap - tap_y * job.kernel_width);
            if (place >= 0) words[w] |= (u32)arena[place + product - tap * job.channels] << (8 * i);
        }
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
}

// Which tile of its job a block computes, and which share of the sum.
struct Tile {
    int index, m, n, split, first, count;   // first and number of its slices
    __device__ __forceinline__ void start(const Job& job, int block) {
        index = block / job.splits;
        split = block - index * job.splits;
        m = index / job.tiles_n;
        n = index - m * job.tiles_n;
        int slices = (job.products + SLICE - 1) / SLICE;
        first = slices * split / job.splits;
        count = slices * (split + 1) / job.splits - first;
    }
};

// Adds up the partial sums of the blocks that share a tile. Each puts its own down and draws a ticket; the one with the last
// ticket adds the others' to its own and goes on, all others are done (false). Sums of integers do not depend on the order.
// The ticket counter returns to 0 by itself. SUMS is the number of sums of a thread.
template <int SUMS>
__device__ __forceinline__ bool join(const Job& job, const Buffers& on, const Tile& tile, int (&sums)[SUMS]) {
    __shared__ u32 ticket;
    int4* shares = reinterpret_cast<int4*>(on.partial + job.partial) + (size_t)tile.index * job.splits * (SUMS / 4) * THREADS;
    int4* own = shares + tile.split * (SUMS / 4) * THREADS + threadIdx.x;
    #pragma unroll
    for (int i = 0; i < SUMS / 4; i++)
        own[i * THREADS] = make_int4(sums[4 * i], sums[4 * i + 1], sums[4 * i + 2], sums[4 * i + 3]);
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) ticket = atomicInc(on.tickets + job.ticket + tile.index, job.splits - 1);
    __syncthreads();
    if (ticket != job.splits - 1) return false;
    __threadfence();
    for (int split = 0; split < job.splits; split++) {
        if (split == tile.split) continue;
        const int4* other = shares + split * (SUMS / 4) * THREADS + threadIdx.x;
        #pragma unroll
        for (int i = 0; i < SUMS / 4; i++) {
            int4 four = __ldcg(other + i * THREADS);
            sums[4 * i] += four.x; sums[4 * i + 1] += four.y; sums[4 * i + 2] += four.z; sums[4 * i + 3] += four.w;
        }
    }
    return true;
}

// Bytes from row to row of a finished tile in shared memory: a chunk more than it has, so that rows start in other banks.
template <int BN> struct Finished { enum { PITCH = BN + CHUNK }; };

// Writes a finished tile of bytes from shared memory into the tensor, which may be a slice of a concatenation.
template <int BN>
__device__ __forceinline__ void store(const Job& job, const Buffers& on, const Tile& tile, const u8* finished) {
    const int pixels = job.out_height * job.out_width;
    for (int i = threadIdx.x; i < TILE_M * BN / CHUNK; i += THREADS) {
        int row = i / (BN / CHUNK), column = (i - row * (BN / CHUNK)) * CHUNK;
        int pixel = tile.m * TILE_M + row, output = tile.n * BN + column;
        if (pixel >= pixels) continue;
        u8* to = on.arena + job.to + (size_t)pixel * job.to_step + output;
        const u8* bytes = finished + row * Finished<BN>::PITCH + column;
        if (job.wide_to && output + CHUNK <= job.outputs) {
            *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(bytes);
        } else {
            for (int j = 0; j < CHUNK && output + j < job.outputs; j++) to[j] = bytes[j];
        }
    }
}
