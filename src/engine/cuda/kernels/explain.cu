// Where the answer comes from, as src/explain does it: what each of the 64 positions adds to a class's logit, and the heat of
// it over the frame in colour.
#include "job.cuh"

#define CELLS 64
#define SIDE 8

// C[i] = scale x sum over k of w[i * stride + k] F[i][k], a block for a position. `features` are the bytes of the network, w
// the slope of the logit for each channel (stride 0: the same at every position).
extern "C" __global__ void contributions(const u8* __restrict__ features, int step, int channels, const float* __restrict__ w,
                                         int stride, float scale, const float* __restrict__ constant, float* __restrict__ map) {
    __shared__ float sums[THREADS];
    const int cell = blockIdx.x, t = threadIdx.x;
    float sum = 0.0f;
    for (int k = t; k < channels; k += THREADS) sum += w[cell * stride + k] * (float)features[cell * step + k];
    sums[t] = sum;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (t < half) sums[t] += sums[t + half];
        __syncthreads();
    }
    if (t == 0) map[cell] = sums[0] * scale + constant[cell];
}

// The region that is coloured. The same words as `Place` in ../explain.rs.
struct Area {
    int width, height;                  // of the frame
    int x, y, inner_width, inner_height;
};

// Bilinear between the centres of the cells, constant outside them; `x` and `y` from 0 to 1.
__device__ __forceinline__ void cell(float at, int& low, float& share) {
    float place = (at - 0.0625f) / 0.125f;
    place = fminf(fmaxf(place, 0.0f), (float)(SIDE - 1));
    low = min((int)place, SIDE - 2);
    share = place - (float)low;
}

// RGB of the frame with the heat of `map` over it; `colours` are nine points of the colour map, three floats each.
extern "C" __global__ void overlay(const u8* __restrict__ frame, Area area, const float* __restrict__ map,
                                   const float* __restrict__ colours, u8* __restrict__ rgb) {
    __shared__ float heat[CELLS];
    if (threadIdx.x < CELLS) heat[threadIdx.x] = map[threadIdx.x];
    __syncthreads();
    float top = 0.0f;
    for (int i = 0; i < CELLS; i++) top = fmaxf(top, heat[i]);
    const float scale = top > 0.0f && top < 3.0e38f ? 1.0f / top : 0.0f;
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= area.width * area.height) return;
    const int row = i / area.width, y = row - area.y, x = i - row * area.width - area.x;
    const float grey = (float)frame[i];
    u8* to = rgb + 3 * (size_t)i;
    if (x < 0 || x >= area.inner_width || y < 0 || y >= area.inner_height) {
        to[0] = to[1] = to[2] = frame[i];
        return;
    }
    int left, above;
    float fx, fy;
    cell((float)x / (float)area.inner_width + 0.5f / (float)area.inner_width, left, fx);
    cell((float)y / (float)area.inner_height + 0.5f / (float)area.inner_height, above, fy);
    float two[2];
    #pragma unroll
    for (int k = 0; k < 2; k++) {
        const float* line = heat + (above + k) * SIDE + left;
        float a = fminf(fmaxf(line[0], 0.0f) * scale, 1.0f), b = fminf(fmaxf(line[1], 0.0f) * scale, 1.0f);
        two[k] = a * (1.0f - fx) + b * fx;
    }
    const float value = two[0] * (1.0f - fy) + two[1] * fy;
    const float at = fminf(fmaxf(value, 0.0f), 1.0f) * 8.0f;
    const int point = min((int)at, 7);
    const float f = at - (float)point, alpha = fminf(value / 0.5f, 1.0f) * 0.6f;
    #pragma unroll
    for (int k = 0; k < 3; k++) {
        const int hot = (int)(colours[3 * point + k] * (1.0f - f) + colours[3 * point + 3 + k] * f + 0.5f);
        to[k] = (u8)(int)(grey * (1.0f - alpha) + (float)hot * alpha + 0.5f);
    }
}
