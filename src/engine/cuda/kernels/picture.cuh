// What lies around the network: the picture before it, what the processor and the screen want behind it.
//
// All sizes are read from `Picture`, and grids are fixed, so that one graph serves frames of every size. Frame, `Picture`, `Seen` and
// the lit picture are the machine's own page-locked memory, which the kernels read and write in place.
#pragma once
#include "job.cuh"

#define SIDE 299                        // of the network's input
#define PIXELS (SIDE * SIDE)
#define CELL_SIDE 8                     // of the features
#define CELLS (CELL_SIDE * CELL_SIDE)
#define RAMPS 12

// The same words as `Picture` in ../reading.rs.
struct Picture {
    int frame_width, frame_height;
    int x, y, width, height;            // the B-scan's region in the frame
    int white;                          // margin is at least this white; 0 keeps all
    int least;                          // least height of the band, in rows of SIDE
    int input;                          // first byte of the network's input in the arena
    int features, features_step;        // first byte of the features, and bytes from position to position
    int shown_width, shown_height;      // of the picture on the screen; 0 where nobody looks
    int across_from, across_to;         // columns of it that show the region
    int ramps;                          // pieces over which the heat runs straight
    int ramp[RAMPS][5];                 // of each: first column, column behind the last, cell, share at the first, share of a pixel
};

// The same bytes as `Seen` in ../reading.rs.
struct Seen {
    u8 whole[PIXELS + 3];               // the whole region, for gate and image quality
    u8 input[PIXELS + 3];               // the band, which the network sees
    int band[2];                        // first row of the band in the region, and rows
    int best;                           // class of the largest logit
    float map[CELLS];                   // what each position adds to its logit
};

// Which block comes last: true for all its threads. What the others wrote may then be read, past the first-level cache.
__device__ __forceinline__ bool is_last(u32* ticket, int blocks) {
    __shared__ u32 drawn;
    __threadfence();
    __syncthreads();   // all of the block have written
    if (threadIdx.x == 0) drawn = atomicInc(ticket, blocks - 1);
    __syncthreads();
    __threadfence();
    return drawn == blocks - 1;
}
