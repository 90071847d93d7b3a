// Where the answer comes from, as src/explain does it: what each of the 64 positions adds to the largest logit. Both heads are linear in
// the features once their ReLUs are known.
//
// - hidden, then contributions: the head `gap`. Each block has 32 channels and puts down its share of the hidden units, or of the map; the
//   last block adds the shares up, always in the same order.
// - positions: the head `conv`. A block has a position; the last one chooses the class.
#pragma once
#include "picture.cuh"

#define CHANNELS 2048
#define HIDDEN 64
#define CLASSES 4
#define GROUP 32                        // channels of a block
#define GROUPS (CHANNELS / GROUP)

// The same words as `Head::words` in ../reading.rs.
struct Head {
    float scale;                        // value of a step of a feature's byte
    float first[HIDDEN * CHANNELS];     // [unit][channel]
    float first_bias[HIDDEN];
    float second[CLASSES * CELLS * HIDDEN];   // gap: [class][unit]; conv: [class][position][unit]
    float second_bias[CLASSES];
};

// The first of the largest.
__device__ __forceinline__ int best_of(const float* logits) {
    int best = 0;
    #pragma unroll
    for (int c = 1; c < CLASSES; c++)
        if (logits[c] > logits[best]) best = c;
    return best;
}

// The map, and its heat: cut off below 0, the largest 1. Threads up to CELLS have a cell's value each.
__device__ __forceinline__ void put_map(float value, float* heat, Seen* seen) {
    __shared__ float all[CELLS];
    const int t = threadIdx.x;
    if (t < CELLS) {
        all[t] = value;
        seen->map[t] = value;
    }
    __syncthreads();   // all values are there
    if (t >= CELLS) return;
    float top = 0.0f;
    for (int i = 0; i < CELLS; i++) top = fmaxf(top, all[i]);
    const float scale = top > 0.0f && top < 3.0e38f ? 1.0f / top : 0.0f;
    heat[t] = fminf(fmaxf(value, 0.0f) * scale, 1.0f);
}

extern "C" __global__ void __launch_bounds__(THREADS) hidden(
    const Picture* picture, const u8* arena, const Head* head, float* partial, float* gates, u32* tickets, Seen* seen) {
    __shared__ int sums[THREADS / 8][GROUP + 1];
    __shared__ float means[GROUP], units[HIDDEN], logits[CLASSES];
    const int t = threadIdx.x, group = blockIdx.x;
    const int step = picture->features_step;
    // Eight threads have the group's channels, four each, of every sixteenth position.
    const u8* const from = arena + picture->features + group * GROUP + (t & 7) * 4;
    int own[4] = {0, 0, 0, 0};
    for (int i = t >> 3; i < CELLS; i += THREADS / 8) {
        const u32 word = *reinterpret_cast<const u32*>(from + i * step);
        #pragma unroll
        for (int b = 0; b < 4; b++) own[b] += word >> (8 * b) & 255;
    }
    #pragma unroll
    for (int b = 0; b < 4; b++) sums[t >> 3][(t & 7) * 4 + b] = own[b];
    __syncthreads();   // the threads' sums are there
    if (t < GROUP) {
        int sum = 0;
        for (int i = 0; i < THREADS / 8; i++) sum += sums[i][t];
        means[t] = (float)sum * (head->scale * (1.0f / CELLS));
    }
    __syncthreads();   // the means are there
    // Two threads have a unit, half of the channels each.
    const int unit = t >> 1, half = (t & 1) * (GROUP / 2);
    const float* const weights = head->first + unit * CHANNELS + group * GROUP + half;
    float share = 0.0f;
    for (int k = 0; k < GROUP / 2; k++) share += weights[k] * means[half + k];
    share += __shfl_xor_sync(~0u, share, 1);
    if (half == 0) partial[group * HIDDEN + unit] = share;
    if (!is_last(tickets + 1, GROUPS)) return;
    if (t < HIDDEN) {
        float sum = head->first_bias[t];
        for (int g = 0; g < GROUPS; g++) sum += __ldcg(partial + g * HIDDEN + t);
        units[t] = fmaxf(sum, 0.0f);
    }
    __syncthreads();   // the units are there
    if (t < CLASSES) {
        float sum = head->second_bias[t];
        for (int m = 0; m < HIDDEN; m++) sum += head->second[t * HIDDEN + m] * units[m];
        logits[t] = sum;
    }
    __syncthreads();   // the logits are there
    const int best = best_of(logits);
    if (t < HIDDEN) gates[t] = units[t] > 0.0f ? head->second[best * HIDDEN + t] : 0.0f;
    if (t == 0) seen->best = best;
}

extern "C" __global__ void __launch_bounds__(THREADS) contributions(
    const Picture* picture, const u8* arena, const Head* head, const float* gates, float* partial, u32* tickets, float* heat,
    Seen* seen) {
    __shared__ float shares[WARPS][GROUP], slopes[GROUP];
    const int t = threadIdx.x, group = blockIdx.x;
    // A warp has sixteen units, a lane a channel.
    const int channel = t & 31, units = (t >> 5) * (HIDDEN / WARPS);
    float slope = 0.0f;
    for (int m = units; m < units + HIDDEN / WARPS; m++) slope += head->first[m * CHANNELS + group * GROUP + channel] * gates[m];
    shares[t >> 5][channel] = slope;
    __syncthreads();   // the warps' shares are there
    if (t < GROUP) slopes[t] = shares[0][t] + shares[1][t] + shares[2][t] + shares[3][t];
    __syncthreads();   // the slopes are there
    // Two threads have a position, half of the channels each.
    const int cell = t >> 1, half = (t & 1) * (GROUP / 2);
    const u8* const from = arena + picture->features + cell * picture->features_step + group * GROUP + half;
    float sum = 0.0f;
    #pragma unroll
    for (int w = 0; w < GROUP / 8; w++) {
        const u32 word = *reinterpret_cast<const u32*>(from + 4 * w);
        #pragma unroll
        for (int b = 0; b < 4; b++) sum += slopes[half + 4 * w + b] * (float)(int)(word >> (8 * b) & 255);
    }
    sum += __shfl_xor_sync(~0u, sum, 1);
    if (half == 0) partial[group * CELLS + cell] = sum;
    if (!is_last(tickets + 2, GROUPS)) return;
    float value = 0.0f;
    if (t < CELLS) {
        for (int g = 0; g < GROUPS; g++) value += __ldcg(partial + g * CELLS + t);
        value *= head->scale * (1.0f / CELLS);
    }
    put_map(value, heat, seen);
}

extern "C" __global__ void __launch_bounds__(THREADS) positions(
    const Picture* picture, const u8* arena, const Head* head, float* partial, u32* tickets, float* heat, Seen* seen) {
    __shared__ float shares[WARPS][CLASSES], logits[CLASSES];
    const int t = threadIdx.x, lane = t & 31, warp = t >> 5, cell = blockIdx.x;
    const u8* const from = arena + picture->features + cell * picture->features_step;
    const float scale = head->scale;
    float share = 0.0f;   // of class `lane`
    for (int unit = warp; unit < HIDDEN; unit += WARPS) {
        const float* const weights = head->first + unit * CHANNELS;
        float sum = 0.0f;
        for (int k = lane; k < CHANNELS; k += 32) sum += weights[k] * (float)(int)from[k];
        #pragma unroll
        for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
        const float value = fmaxf(sum * scale + head->first_bias[unit], 0.0f);
        if (lane < CLASSES) share += head->second[(lane * CELLS + cell) * HIDDEN + unit] * value;
    }
    if (lane < CLASSES) shares[warp][lane] = share;
    __syncthreads();   // the warps' shares are there
    if (t < CLASSES) partial[t * CELLS + cell] = shares[0][t] + shares[1][t] + shares[2][t] + shares[3][t];
    if (!is_last(tickets + 1, CELLS)) return;
    if (t < CLASSES) {
        float sum = head->second_bias[t];
        for (int i = 0; i < CELLS; i++) sum += __ldcg(partial + t * CELLS + i);
        logits[t] = sum;
    }
    __syncthreads();   // the logits are there
    const int best = best_of(logits);
    if (t == 0) seen->best = best;
    put_map(t < CELLS ? __ldcg(partial + best * CELLS + t) : 0.0f, heat, seen);
}
