// The frame at the size of the screen under the heat, as src/explain/light.rs draws it: each pixel the mean, rounded down, of the frame's
// pixels that it covers, under the heat in fixed point. A thread makes four pixels: three words.
#pragma once
#include "picture.cuh"

// Pixels of the screen's picture before source pixel `at`: `covered` in src/explain/light.rs.
__device__ __forceinline__ int edge(int at, int source, int size) { return min((at * size + source / 2) / source, size); }

// The heat of column `j` of the cells between rows `i` and `i + 1`, in units of 2^-8 of a step of 255.
__device__ __forceinline__ int cell_heat(const float* heat, int i, int j, float share) {
    const float* const cell = heat + i * CELL_SIDE + j;
    const float value = fminf(fmaxf(cell[0] * (1.0f - share) + cell[CELL_SIDE] * share, 0.0f), 1.0f);
    return (int)(value * 255.0f * 256.0f + 0.5f);
}

extern "C" __global__ void __launch_bounds__(THREADS) light(
    const u8* frame, const Picture* picture, const int* band, const float* heat, const u32* colours, u32* rgb) {
    __shared__ Picture p;
    __shared__ float cells[CELLS];
    for (int i = threadIdx.x; i < sizeof(Picture) / 4; i += THREADS)
        reinterpret_cast<int*>(&p)[i] = reinterpret_cast<const int*>(picture)[i];
    if (threadIdx.x < CELLS) cells[threadIdx.x] = heat[threadIdx.x];
    __syncthreads();   // picture and heat are there
    const int first = p.y + band[0];
    const int top = edge(first, p.frame_height, p.shown_height), end = edge(first + band[1], p.frame_height, p.shown_height);
    const int groups = (p.shown_width + 3) / 4;
    for (int item = blockIdx.x * THREADS + threadIdx.x; item < groups * p.shown_height; item += gridDim.x * THREADS) {
        const int y = item / groups, left = (item - y * groups) * 4;
        const int y0 = y * p.frame_height / p.shown_height, y1 = max((y + 1) * p.frame_height / p.shown_height, y0 + 1);
        const bool lit = y >= top && y < end;
        float place = ((float)(y - top) + 0.5f) * 8.0f / (float)(end - top) - 0.5f;
        place = fminf(fmaxf(place, 0.0f), 7.0f);
        const int i = min((int)place, 6);
        const float share = place - (float)i;
        u32 pixels[4];
        int ramp = 0;
        #pragma unroll
        for (int b = 0; b < 4; b++) {
            const int x = min(left + b, p.shown_width - 1);
            const int x0 = x * p.frame_width / p.shown_width, x1 = max((x + 1) * p.frame_width / p.shown_width, x0 + 1);
            u32 sum = 0;
            for (int row = y0; row < y1; row++)
                for (int column = x0; column < x1; column++) sum += frame[row * p.frame_width + column];
            const u32 grey = sum / ((x1 - x0) * (y1 - y0));
            pixels[b] = grey * 0x010101u;
            if (!lit || x < p.across_from || x >= p.across_to) continue;
            const int at = x - p.across_from;
            while (ramp + 1 < p.ramps && at >= p.ramp[ramp][1]) ramp++;
            const int* const piece = p.ramp[ramp];
            const int a = cell_heat(cells, i, piece[2], share), d = cell_heat(cells, i, piece[2] + 1, share) - a;
            // 2^-24 of a step; the half makes the upper byte round.
            const u32 level = ((u32)a << 16) + (u32)(d * piece[3]) + (1u << 23) + (u32)(d * piece[4]) * (u32)(at - piece[0]);
            pixels[b] = colours[(level >> 24) * 256 + grey];
        }
        u32* const to = rgb + item * 3;
        to[0] = pixels[0] | pixels[1] << 24;
        to[1] = pixels[1] >> 8 | pixels[2] << 16;
        to[2] = pixels[2] >> 16 | pixels[3] << 8;
    }
}
