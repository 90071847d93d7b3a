// From a frame to the network's input, in the integers of src/prepare.rs and src/prepare/band.rs: white margins become black, a triangle
// filter of 14-bit weights makes 299 columns, then 299 rows of the whole; the band around the retina is found in them and made again from
// the region's own rows. Four launches:
//
// - margins: how far the white runs reach from each edge, a warp for a row, a thread for a column; the filters' weights meanwhile.
// - narrow: a block takes a row of the frame into shared memory, word by word and each byte once, blackens it and makes 299 columns.
// - whole: a block makes a row of the whole; the last block finds the band and its filter's weights.
// - input: a block makes a row of the band.
#pragma once
#include "picture.cuh"

#define WIDEST 8192         // of a region; see `LARGEST` in ../reading.rs
#define NARROW_PITCH 304           // bytes from row to row of the narrow picture: whole words
#define MOST_TAPS 64        // a region of WIDEST has 57
#define STRIP 13            // columns of a strip
#define STRIPS (SIDE / STRIP)
#define AIR 24              // rows added to the retina's extent
#define BRIGHTEST (255 * STRIP * 3)
#define BAND_CELLS (SIDE * STRIPS)
#define WARPS (THREADS / 32)
#define WORDS (NARROW_PITCH / 4)
#define LANE_ROWS 10        // rows of the band's sums that a lane adds: 32 x 10 is at least SIDE

// A filter: weight k of output o at weights[k][o], for the source pixel first[o] + k.
struct Taps {
    int first[SIDE], count[SIDE];
    int weights[MOST_TAPS][SIDE];
};

// Weights of output `o` between `from` pixels and SIDE, as `taps` in src/kernels/resize.rs; from is at most WIDEST, so that 32 bits do.
__device__ __forceinline__ void make_taps(Taps* to, int from, int o) {
    const int support = max(from, SIDE), centre = (2 * o + 1) * from;
    const int first = max(centre - 2 * support, 0) / (2 * SIDE);
    const int last = min((centre + 2 * support) / (2 * SIDE), from - 1);
    u32 sum = 0;
    for (int i = first; i <= last; i++) sum += max(2 * support - abs(centre - (2 * i + 1) * SIDE), 0);
    int rest = 1 << 14, heaviest = 0, most = -1;
    for (int i = first; i <= last; i++) {
        const u32 raw = max(2 * support - abs(centre - (2 * i + 1) * SIDE), 0);
        const int weight = ((raw << 15) + sum) / (2 * sum);
        to->weights[i - first][o] = weight;
        rest -= weight;
        if (weight > most) { most = weight; heaviest = i - first; }
    }
    // What rounding left over goes to the heaviest, the first of equals.
    to->weights[heaviest][o] = most + rest;
    to->first[o] = first;
    to->count[o] = last - first + 1;
}

// How many of a line's pixels are white from its beginning on, found by a warp.
__device__ __forceinline__ int run_of_row(const u8* line, int step, int length, int white) {
    const int lane = threadIdx.x & 31;
    for (int done = 0; done < length; done += 32) {
        const int i = done + lane;
        const bool is_white = i < length && line[i * step] >= white;
        const u32 others = __ballot_sync(~0u, !is_white);
        if (others) return done + __ffs(others) - 1;
    }
    return length;
}
// The same found by a thread, eight pixels at a time.
__device__ __forceinline__ int run_of_column(const u8* line, int step, int length, int white) {
    for (int done = 0; done < length; done += 8) {
        u32 whites = 0;
        #pragma unroll
        for (int j = 0; j < 8; j++)
            if (done + j < length && line[(done + j) * step] >= white) whites |= 1 << j;
        if (whites != 255) return done + __ffs(~whites) - 1;
    }
    return length;
}

extern "C" __global__ void __launch_bounds__(THREADS) margins(const u8* frame, const Picture* picture, int2* runs, Taps* taps) {
    const int width = picture->width, height = picture->height, pitch = picture->frame_width, white = picture->white;
    const u8* const region = frame + picture->y * pitch + picture->x;
    const int lane = threadIdx.x & 31;
    const int columns = (width + 31) / 32, outputs = (SIDE + 31) / 32;
    const int items = height + columns + 2 * outputs;
    for (int item = blockIdx.x * WARPS + (threadIdx.x >> 5); item < items; item += gridDim.x * WARPS) {
        if (item < height) {
            const u8* const row = region + item * pitch;
            int2 run = make_int2(0, 0);
            if (white > 0) run = make_int2(run_of_row(row, 1, width, white), run_of_row(row + width - 1, -1, width, white));
            if (lane == 0) runs[item] = run;
        } else if (item < height + columns) {
            const int x = (item - height) * 32 + lane;
            if (x >= width) continue;
            const u8* const top = region + x;
            int2 run = make_int2(0, 0);
            if (white > 0)
                run = make_int2(run_of_column(top, pitch, height, white),
                                run_of_column(top + (height - 1) * pitch, -pitch, height, white));
            runs[height + x] = run;
        } else {
            const int number = item - height - columns, which = number / outputs;
            const int o = (number - which * outputs) * 32 + lane;
            if (o < SIDE) make_taps(taps + which, which == 0 ? width : height, o);
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) narrow(
    const u8* frame, const Picture* picture, const int2* runs, const Taps* taps, u8* out) {
    __shared__ __align__(16) u8 line[WIDEST + 8];
    const int width = picture->width, height = picture->height, pitch = picture->frame_width;
    const int region = picture->y * pitch + picture->x;
    const bool margins = picture->white > 0;
    for (int y = blockIdx.x; y < height; y += gridDim.x) {
        // Whole words, from the one that the row's first byte lies in.
        const int start = region + y * pitch, skip = start & 3;
        const u32* const words = reinterpret_cast<const u32*>(frame + start - skip);
        const int2 sides = runs[y];
        for (int w = threadIdx.x; w < (skip + width + 3) / 4; w += THREADS) {
            u32 word = words[w];
            for (int b = 0; margins && b < 4; b++) {
                const int x = 4 * w + b - skip;
                if (x < 0 || x >= width) continue;
                const int2 ends = runs[height + x];
                if (x < sides.x || x >= width - sides.y || y < ends.x || y >= height - ends.y) word &= ~(255u << (8 * b));
            }
            reinterpret_cast<u32*>(line)[w] = word;
        }
        __syncthreads();   // the row is there
        for (int o = threadIdx.x; o < SIDE; o += THREADS) {
            const u8* const from = line + skip + taps->first[o];
            const int count = taps->count[o];
            int sum = 1 << 13;
            for (int k = 0; k < count; k++) sum += taps->weights[k][o] * from[k];
            out[y * NARROW_PITCH + o] = sum >> 14;   // the weights are one together, so this is a byte
        }
        __syncthreads();   // all are done with the row
    }
}

// Row `o` of 299 rows that are made of the narrow picture's rows from `from` on, into `line`.
__device__ __forceinline__ void make_row(const u8* from, const Taps* taps, int o, u8* line) {
    const int t = threadIdx.x;
    if (t < WORDS) {
        from += taps->first[o] * NARROW_PITCH + 4 * t;
        const int count = taps->count[o];
        int sums[4] = {1 << 13, 1 << 13, 1 << 13, 1 << 13};
        for (int k = 0; k < count; k++) {
            const int weight = taps->weights[k][o];
            const u32 word = *reinterpret_cast<const u32*>(from + k * NARROW_PITCH);
            #pragma unroll
            for (int b = 0; b < 4; b++) sums[b] += weight * (int)(word >> (8 * b) & 255);
        }
        u32 word = 0;
        #pragma unroll
        for (int b = 0; b < 4; b++) word |= (u32)(sums[b] >> 14) << (8 * b);
        reinterpret_cast<u32*>(line)[t] = word;
    }
    __syncthreads();   // the row is there
}

// The sum of all threads' values; `room` has a word for each warp.
__device__ __forceinline__ int sum_of_block(int value, int* room) {
    #pragma unroll
    for (int d = 16; d > 0; d /= 2) value += __shfl_xor_sync(~0u, value, d);
    __syncthreads();   // all are done with the sum before
    if ((threadIdx.x & 31) == 0) room[threadIdx.x >> 5] = value;
    __syncthreads();
    return room[0] + room[1] + room[2] + room[3];
}

// Where the retina lies: first row of the region and number of rows, in band[0] and band[1]; all threads know them behind it.
__device__ __forceinline__ void find_band(const int* strips, int least, int height, int* band) {
    __shared__ unsigned short cells[BAND_CELLS];
    __shared__ int bright[32 * LANE_ROWS], room[WARPS];
    const int t = threadIdx.x, lane = t & 31, warp = t >> 5;
    for (int i = t; i < BAND_CELLS; i += THREADS) {
        const int y = i / STRIPS, s = i - y * STRIPS;
        const int above = max(y - 1, 0), below = min(y + 1, SIDE - 1);
        cells[i] = __ldcg(strips + above * STRIPS + s) + __ldcg(strips + i) + __ldcg(strips + below * STRIPS + s);
    }
    for (int i = t; i < 32 * LANE_ROWS; i += THREADS) bright[i] = 0;
    __syncthreads();   // the cells are there
    // Median and 98th percentile at once: the least value that so many cells do not pass, by halving. A count has 13 bits.
    int low = 0, high = BRIGHTEST, low98 = 0, high98 = BRIGHTEST;
    for (int step = 0; step < 14; step++) {
        const int middle = (low + high) / 2, middle98 = (low98 + high98) / 2;
        int counts = 0;
        for (int i = t; i < BAND_CELLS; i += THREADS) counts += (cells[i] <= middle) + ((cells[i] <= middle98) << 16);
        counts = sum_of_block(counts, room);
        if ((counts & 0xffff) > BAND_CELLS / 2) high = middle; else low = middle + 1;
        if (counts >> 16 > BAND_CELLS * 98 / 100) high98 = middle98; else low98 = middle98 + 1;
    }
    const int limit = low + (low98 - low) * 35 / 100;
    for (int y = warp; y < SIDE; y += WARPS) {
        const u32 over = __ballot_sync(~0u, lane < STRIPS && cells[y * STRIPS + min(lane, STRIPS - 1)] > limit);
        if (lane == 0) bright[y] = __popc(over);
    }
    __syncthreads();   // the rows' counts are there
    if (warp == 0) {
        int own = 0;
        for (int j = 0; j < LANE_ROWS; j++) own += bright[lane * LANE_ROWS + j];
        int running = own;
        #pragma unroll
        for (int d = 1; d < 32; d *= 2) {
            const int before = __shfl_up_sync(~0u, running, d);
            if (lane >= d) running += before;
        }
        const int all = __shfl_sync(~0u, running, 31);
        running -= own;
        // Rows before which less than 2 % of the bright cells lie, and 98 %.
        int ends = 0;
        for (int j = 0; j < LANE_ROWS; j++) {
            const int y = lane * LANE_ROWS + j;
            running += bright[y];
            if (y < SIDE) ends += (running * 50 < all) + ((running * 50 < all * 49) << 16);
        }
        #pragma unroll
        for (int d = 16; d > 0; d /= 2) ends += __shfl_xor_sync(~0u, ends, d);
        const int top = ends & 0xffff, bottom = (ends >> 16) + 1;
        int rows = min(max(bottom - top + AIR, least), SIDE);
        if (all == 0) rows = SIDE;   // nothing stands out
        const int first = min(max((top + bottom) / 2 - rows / 2, 0), SIDE - rows);
        const int from = (first * height + SIDE / 2) / SIDE, to = ((first + rows) * height + SIDE / 2) / SIDE;
        if (lane == 0) {
            band[0] = from;
            band[1] = max(to - from, 1);
        }
    }
    __syncthreads();   // the band is there
}

extern "C" __global__ void __launch_bounds__(THREADS) whole(
    const Picture* picture, const u8* narrow, Taps* taps, int* strips, int* band, u32* tickets, Seen* seen) {
    __shared__ __align__(16) u8 line[NARROW_PITCH];
    const int t = threadIdx.x, o = blockIdx.x;
    make_row(narrow, taps + 1, o, line);
    for (int x = t; x < SIDE; x += THREADS) seen->whole[o * SIDE + x] = line[x];
    if (t < STRIPS) {
        int sum = 0;
        for (int x = 0; x < STRIP; x++) sum += line[t * STRIP + x];
        strips[o * STRIPS + t] = sum;
    }
    if (!is_last(tickets, SIDE)) return;
    find_band(strips, picture->least, picture->height, band);
    const int rows = band[1];
    if (t < 2) seen->band[t] = band[t];
    for (int i = t; i < SIDE; i += THREADS) make_taps(taps + 2, rows, i);
}

extern "C" __global__ void __launch_bounds__(THREADS) input(
    const Picture* picture, const u8* narrow, const Taps* taps, const int* band, const u8* levels, u8* arena, Seen* seen) {
    __shared__ __align__(16) u8 line[NARROW_PITCH];
    const int o = blockIdx.x;
    make_row(narrow + band[0] * NARROW_PITCH, taps + 2, o, line);
    u8* const to = arena + picture->input + o * SIDE;
    for (int x = threadIdx.x; x < SIDE; x += THREADS) {
        seen->input[o * SIDE + x] = line[x];
        to[x] = levels[line[x]];   // the plan's byte for this grey level
    }
}
