// How a block reads its slices: the beginning that every kind of multiplication shares.
//
// Four threads read a row. Thread t has chunk t % 4 of the pixels t / 4 and t / 4 + 32 of the tile, and the same chunk of the
// outputs t / 4 and, in a tile of 64, t / 4 + 32: four neighbours read 64 bytes in a row, two whole sectors.
#pragma once
#include "job.cuh"

template <int BN, bool WIDE>
struct Loads {
    enum { OUTPUTS = BN / 32 };   // rows of weights that a thread reads
    int chunk, row, product;
    Walk walk[2];
    Place place;
    const s8* weights;

    __device__ __forceinline__ void start(const Job& job, const Buffers& on, const Tile& tile) {
        chunk = threadIdx.x & 3;
        row = threadIdx.x >> 2;
        product = tile.first * SLICE + chunk * CHUNK;
        walk[0].start(job, tile.m * TILE_M + row);
        walk[1].start(job, tile.m * TILE_M + row + 32);
        place.start(job, product);
        const int slices = (job.products + SLICE - 1) / SLICE;
        weights = on.weights + job.weights + ((size_t)tile.n * slices + tile.first) * BN * SLICE + threadIdx.x * CHUNK;
    }
    // Where the arena has the chunk of pixel i; -1 beside the picture and beyond the sum's end, where it is zeros.
    __device__ __forceinline__ int at(const Job& job, int i) const {
        int at = place.tap_y < job.kernel_height ? walk[i].at(job, place.tap_y, place.tap_x) : -1;
        return at >= 0 ? at + place.channel : -1;
    }
    __device__ __forceinline__ uint4 pixel(const Job& job, const Buffers& on, int i) const {
        if (!WIDE) return gather(job, on.arena, walk[i], product);
        const int from = at(job, i);
        if (from < 0) return make_uint4(0, 0, 0, 0);
        return *reinterpret_cast<const uint4*>(on.arena + from);
    }
    __device__ __forceinline__ const s8* output(int i) const { return weights + i * 32 * SLICE; }
    // On to the next slice.
    __device__ __forceinline__ void next(const Job& job) {
        weights += BN * SLICE;
        product += SLICE;
        place.next(job);
    }
};
