// Pools: a thread computes 16 channels of an output pixel, or one where pixels are no whole chunks. Padding counts neither
// for the maximum nor for the mean. The value is multiplied by multiplier[pixels inside], which the host has divided already.
#pragma once
#include "job.cuh"

template <bool MAX, int COUNT>
__device__ __forceinline__ void pool_pixel(const Job& job, const Buffers& on, int item) {
    const int groups = job.channels / COUNT;
    const int pixel = item / groups, channel = (item - pixel * groups) * COUNT;
    Walk walk;
    walk.start(job, pixel);
    int values[COUNT], inside = 0;
    #pragma unroll
    for (int i = 0; i < COUNT; i++) values[i] = 0;
    for (int y = 0; y < job.kernel_height; y++) {
        for (int x = 0; x < job.kernel_width; x++) {
            int at = walk.at(job, y, x);
            if (at < 0) continue;
            inside++;
            u32 words[(COUNT + 3) / 4];
            if (COUNT == CHUNK) {
                uint4 v = *reinterpret_cast<const uint4*>(on.arena + at + channel);
                words[0] = v.x;
                words[COUNT > 4 ? 1 : 0] = v.y;
                words[COUNT > 8 ? 2 : 0] = v.z;
                words[COUNT > 12 ? 3 : 0] = v.w;
            } else {
                words[0] = on.arena[at + channel];
            }
            #pragma unroll
            for (int i = 0; i < COUNT; i++) {
                int byte = words[i / 4] >> (8 * (i % 4)) & 255;
                values[i] = MAX ? max(values[i], byte) : values[i] + byte;
            }
        }
    }
    const float m = on.multiplier[job.scales + inside];
    u8* to = on.arena + job.to + (size_t)pixel * job.to_step + channel;
    if (COUNT == CHUNK) {
        u32 words[4] = {0, 0, 0, 0};
        #pragma unroll
        for (int i = 0; i < COUNT; i++) words[i / 4 % 4] |= (u32)to_byte(values[i], m) << (8 * (i % 4));
        *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
    } else {
        *to = to_byte(values[0], m);
    }
}

template <bool MAX>
__device__ __forceinline__ void pool(const Job& job, int block, const Buffers& on) {
    const int item = block * THREADS + threadIdx.x;
    const int channels = job.out_height * job.out_width * job.channels;
    if (job.wide_from && job.wide_to) {
        if (item < channels / CHUNK) pool_pixel<MAX, CHUNK>(job, on, item);
    } else if (item < channels) {
        pool_pixel<MAX, 1>(job, on, item);
    }
}
