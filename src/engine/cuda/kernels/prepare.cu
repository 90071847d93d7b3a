// From a frame to the network's input, in the integers of src/prepare.rs: white margins become black, then a triangle filter of
// 14-bit weights, columns first, then rows, each pass rounded half up.
#include "job.cuh"

// The B-scan in the frame. The same words as `Scan` in ../prepare.rs.
struct Scan {
    int first;              // first byte of the region in the frame
    int pitch;              // bytes from row to row of the frame
    int width, height;      // of the region
    int white;              // margin is at least this white; 0 keeps all
    int side;               // of the network's input
};

// How many pixels are white from each edge on: left and right for each row, then top and bottom for each column. A thread has
// a row or a column; most runs end at their first pixel.
extern "C" __global__ void margins(const u8* __restrict__ frame, Scan scan, int* __restrict__ runs) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= scan.height + scan.width) return;
    const bool is_row = i < scan.height;
    const int line = is_row ? i : i - scan.height;
    const int length = is_row ? scan.width : scan.height, step = is_row ? 1 : scan.pitch;
    const u8* from = frame + scan.first + line * (is_row ? scan.pitch : 1);
    int near = 0, far = 0;
    if (scan.white > 0) {
        while (near < length && from[near * step] >= scan.white) near++;
        while (far < length && from[(length - 1 - far) * step] >= scan.white) far++;
    }
    runs[2 * i] = near;
    runs[2 * i + 1] = far;
}

// Output `o` of a filter over `from`: taps[o] is the first source pixel, taps[side + o] the number of weights, taps[2 * side + o]
// the first of them in `weights`.
extern "C" __global__ void narrow_columns(const u8* __restrict__ frame, Scan scan, const int* __restrict__ runs,
                                          const int* __restrict__ taps, const int* __restrict__ weights, u8* __restrict__ out) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= scan.side * scan.height) return;
    const int y = i / scan.side, o = i - y * scan.side;
    const int first = taps[o], count = taps[scan.side + o], weight = taps[2 * scan.side + o];
    const u8* row = frame + scan.first + y * scan.pitch;
    const int left = runs[2 * y], right = scan.width - runs[2 * y + 1];
    int sum = 0;
    for (int k = 0; k < count; k++) {
        const int x = first + k, *column = runs + 2 * (scan.height + x);
        const bool margin = x < left || x >= right || y < column[0] || y >= scan.height - column[1];
        sum += margin ? 0 : weights[weight + k] * row[x];
    }
    out[i] = max(0, min(255, (sum + 8192) >> 14));
}

extern "C" __global__ void narrow_rows(const u8* __restrict__ columns, Scan scan, const int* __restrict__ taps,
                                       const int* __restrict__ weights, const u8* __restrict__ levels, u8* __restrict__ grey,
                                       u8* __restrict__ out) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= scan.side * scan.side) return;
    const int o = i / scan.side, x = i - o * scan.side;
    const int first = taps[o], count = taps[scan.side + o], weight = taps[2 * scan.side + o];
    int sum = 0;
    for (int k = 0; k < count; k++) sum += weights[weight + k] * columns[(first + k) * scan.side + x];
    const int byte = max(0, min(255, (sum + 8192) >> 14));
    grey[i] = byte;            // what the appliance keeps as the network's input
    out[i] = levels[byte];     // what the first layer reads: the plan's byte for this grey level
}
