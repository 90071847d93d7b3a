//! The planted bugs.

use super::{Edit, Mutant};
use fovea::engine::cuda::reading;

/// A barrier of a block in PTX.
pub const BARRIER: &str = "bar.sync \t0;";
/// All kernels.
pub fn kernels() -> impl Iterator<Item = &'static str> {
    ["steps"].into_iter().chain(reading::KERNELS)
}
/// How many of the built PTX's mutants the ordinary tests run.
#[cfg(test)]
pub const SAMPLE: usize = 7;

/// Kernels: plain, dp4a, wmma, mma.
const PLAIN: u32 = 53;
const DP4A: u32 = 61;
const WMMA: u32 = 72;
const MMA: u32 = 80;

fn source(on: u32, name: &str, from: &'static str, to: &'static str) -> Mutant {
    Mutant { name: name.into(), on, edit: Edit::Source(from, to), around: false }
}

fn ptx(on: u32, name: &str, (from, nth): (&'static str, usize), to: &'static str) -> Mutant {
    Mutant { name: name.into(), on, edit: Edit::Ptx("steps", from, nth, to), around: false }
}

/// The same around the network.
fn picture(on: u32, name: &str, from: &'static str, to: &'static str) -> Mutant {
    Mutant { around: true, ..source(on, name, from, to) }
}

/// All of them; those of the built PTX first, the sample of the ordinary tests before the others.
pub fn all() -> Vec<Mutant> {
    [built(), order(), split(), reads(), products(), writes(), around()].into_iter().flatten().collect()
}

/// In what is built, without a compiler.
fn built() -> Vec<Mutant> {
    vec![
        Mutant {
            name: "a row of the frame read before it is there".into(),
            on: PLAIN,
            edit: Edit::Ptx("narrow", BARRIER, 0, ""),
            around: true,
        },
        ptx(MMA, "the first barrier of the loop taken away", (BARRIER, 0), ""),
        ptx(MMA, "a group of copies too few waited for", ("wait_group 2;", 0), "wait_group 3;"),
        ptx(MMA, "a fragment loaded transposed", ("m8n8.x4.shared", 0), "m8n8.x4.trans.shared"),
        ptx(DP4A, "pixels multiplied as signed bytes", ("dp4a.u32.s32", 0), "dp4a.s32.s32"),
        ptx(WMMA, "sums read before the warp's lanes have met", ("bar.warp.sync", 0), "// bar.warp.sync"),
        ptx(PLAIN, "rounding towards zero", ("cvt.rni.s32.f32", 0), "cvt.rzi.s32.f32"),
        ptx(MMA, "a ticket that does not return to 0", ("atom.global.inc.u32", 0), "atom.global.add.u32"),
        ptx(DP4A, "no fence before the ticket", ("membar.gl;", 0), ""),
        ptx(MMA, "no fence behind the ticket", ("membar.gl;", 1), ""),
        ptx(PLAIN, "weights multiplied without their sign", ("mad.wide.s16", 0), "mad.wide.u16"),
    ]
}

/// Order within a block: barriers and copies.
fn order() -> Vec<Mutant> {
    let waits = "copies_wait<STAGES - 2>();";
    let loop_mma = "        __syncthreads();\n        if (slice + STAGES - 1 < tile.count)";
    let before = "__syncthreads();   // all are done with the slice before\n        #pragma unroll\n        for (int i = 0; i < 2; i++)\n            *rein";
    let put = "        __syncthreads();\n        if (slice + 1 < tile.count) load();\n        const int left = min(";
    let wmma =
        "        __syncthreads();\n        if (slice + 1 < tile.count) load();\n        const int left = job";
    vec![
        source(MMA, "wait_group one too high", waits, "copies_wait<STAGES - 1>();"),
        source(MMA, "no wait for the copies", waits, ""),
        source(MMA, "no barrier behind the wait", loop_mma, "        if (slice + STAGES - 1 < tile.count)"),
        source(
            MMA,
            "the next slice into the stage in use",
            "load((slice + STAGES - 1) % STAGES)",
            "load(slice % STAGES)",
        ),
        source(
            MMA,
            "the byte tile over stages in use",
            "__syncthreads();   // all are done with the stages",
            "//",
        ),
        source(
            PLAIN,
            "the next slice over the one in use",
            "__syncthreads();   // all are done with the slice before\n        #pragma unroll\n        for (int i = 0; i < 2; i++) put",
            "#pragma unroll\n        for (int i = 0; i < 2; i++) put",
        ),
        source(
            DP4A,
            "no barrier behind the stores",
            put,
            "        if (slice + 1 < tile.count) load();\n        const int left = min(",
        ),
        source(
            PLAIN,
            "the byte tile over a slice in use",
            "__syncthreads();   // all are done with the slice, which",
            "// which",
        ),
        source(
            WMMA,
            "the next slice over the one in use",
            before,
            "#pragma unroll\n        for (int i = 0; i < 2; i++)\n            *rein",
        ),
        source(
            WMMA,
            "no barrier behind the stores",
            wmma,
            "        if (slice + 1 < tile.count) load();\n        const int left = job",
        ),
        source(WMMA, "sums over slices in use", "__syncthreads();   // all are done with the slices", "//"),
        source(
            MMA,
            "the ticket read before it is drawn",
            "    __syncthreads();\n    if (ticket != job.splits - 1)",
            "    if (ticket != job.splits - 1)",
        ),
        source(
            DP4A,
            "a ticket drawn before all have put down",
            "    __threadfence();\n    __syncthreads();\n    if (threadIdx.x == 0)",
            "    __threadfence();\n    if (threadIdx.x == 0)",
        ),
    ]
}

/// Sums shared among blocks.
fn split() -> Vec<Mutant> {
    vec![
        source(
            MMA,
            "a ticket that wraps one too late",
            "tile.index, job.splits - 1);",
            "tile.index, job.splits);",
        ),
        source(MMA, "the first ticket adds up", "if (ticket != job.splits - 1)", "if (ticket != 0)"),
        source(WMMA, "a block's own share added twice", "if (split == tile.split) continue;", ""),
        source(
            PLAIN,
            "no fence before the ticket",
            "    __threadfence();\n    __syncthreads();\n    if (threadIdx.x == 0) ticket",
            "    __syncthreads();\n    if (threadIdx.x == 0) ticket",
        ),
        source(
            MMA,
            "a tile's tickets shared with its neighbour",
            "job.ticket + tile.index, job",
            "job.ticket + tile.index / 2, job",
        ),
        source(
            DP4A,
            "a slice computed by two blocks",
            "job.splits - first;",
            "job.splits - first + (split + 1 < job.splits);",
        ),
    ]
}

/// Reads: padding, bounds, alignment.
fn reads() -> Vec<Mutant> {
    vec![
        source(MMA, "right edge: one column too far", "column < job.width;", "column <= job.width;"),
        source(DP4A, "rows above the picture read", "row >= 0 && row < job.height", "row < job.height"),
        source(PLAIN, "padding forgotten on the left", "* job.stride_x - job.pad_x", "* job.stride_x"),
        source(
            WMMA,
            "wrong zero point beside the picture",
            "if (from < 0) return make_uint4(0, 0, 0, 0);",
            "if (from < 0) return make_uint4(0x80808080u, 0x80808080u, 0x80808080u, 0x80808080u);",
        ),
        source(
            MMA,
            "the byte beside the right one gathered",
            "arena[place + product - tap * job.channels]",
            "arena[place + product - tap * job.channels + 1]",
        ),
        source(
            DP4A,
            "a tap too many in a row",
            "if (++tap_x == job.kernel_width)",
            "if (++tap_x > job.kernel_width)",
        ),
        source(
            PLAIN,
            "vectors off their alignment",
            "return at >= 0 ? at + place.channel : -1;",
            "return at >= 0 ? at + place.channel + 4 : -1;",
        ),
        source(
            WMMA,
            "half of the weights never stored",
            "for (int i = 0; i < loads.OUTPUTS; i++)\n            *rein",
            "for (int i = 0; i < loads.OUTPUTS / 2; i++)\n            *rein",
        ),
        source(
            MMA,
            "weights read a tile too far",
            "((size_t)tile.n * slices + tile.first) * BN",
            "((size_t)(tile.n + 1) * slices + tile.first) * BN",
        ),
        source(
            MMA,
            "a block takes the job before its own",
            "(int)blockIdx.x >= jobs[number].end",
            "(int)blockIdx.x > jobs[number].end",
        ),
        source(
            DP4A,
            "the mean counts the padding",
            "if (at < 0) continue;\n            inside++;",
            "inside++;\n            if (at < 0) continue;",
        ),
    ]
}

/// Fragments and products.
fn products() -> Vec<Mutant> {
    vec![
        source(
            MMA,
            "halves of a fragment swapped",
            "fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]);",
            "fb[j / 2][j % 2 * 2 + 1], fb[j / 2][j % 2 * 2]);",
        ),
        source(
            MMA,
            "ldmatrix: lanes name the wrong rows",
            "a_row = warp_m + (lane & 15)",
            "a_row = warp_m + (lane & 7)",
        ),
        source(
            MMA,
            "ldmatrix: lanes name the wrong chunk",
            "b_chunk = lane >> 3 & 1;",
            "b_chunk = lane >> 4 & 1;",
        ),
        source(
            MMA,
            "swizzled on one side only",
            "copy_async(b + swizzled(loads.row + 32 * i, loads.chunk)",
            "copy_async(b + (loads.row + 32 * i) * SLICE + loads.chunk * CHUNK",
        ),
        source(
            WMMA,
            "the chunk beside the right one",
            "blocked(warp_n + 16 * j, k));",
            "blocked(warp_n + 16 * j, k ^ 1));",
        ),
        source(PLAIN, "the sign of a byte in the wrong half", "SIGNED ? 0x9180", "SIGNED ? 0x8190"),
        source(
            DP4A,
            "the last chunk of a sum left out",
            "const int chunks = (left + CHUNK - 1) / CHUNK;",
            "const int chunks = left / CHUNK;",
        ),
        source(
            MMA,
            "the last half slice left out",
            "if (half * 32 >= left) break;",
            "if (half * 32 + 16 >= left) break;",
        ),
    ]
}

/// From sums to bytes.
fn writes() -> Vec<Mutant> {
    vec![
        source(
            MMA,
            "bias and multiplier of the next channel",
            "output = job.scales + tile.n * BN + column;",
            "output = job.scales + tile.n * BN + column + 1;",
        ),
        source(DP4A, "no rounding: cut towards zero", "__float2int_rn(", "__float2int_rz("),
        source(WMMA, "no clamp at 255", "max(0, min(255, __float2int", "max(0, min(1 << 30, __float2int"),
        source(PLAIN, "no ReLU", "return max(0, min(255,", "return max(-128, min(255,"),
        source(
            MMA,
            "rows beyond the last pixel stored",
            "        if (pixel >= pixels) continue;\n        u8* to = on.arena + job.to + (size_t)pixel * job.to_step + output;\n        const",
            "        u8* to = on.arena + job.to + (size_t)pixel * job.to_step + output;\n        const",
        ),
        source(
            DP4A,
            "the last channels' vector over the neighbour's",
            "if (job.wide_to && output + CHUNK <= job.outputs) {\n            *reinterpret_cast<uint4*>(to) = *rein",
            "if (job.wide_to && output < job.outputs) {\n            *reinterpret_cast<uint4*>(to) = *rein",
        ),
        source(
            MMA,
            "the bytes stored before all are there",
            "    __syncthreads();\n    store<BN>(job, on, tile, shared);\n}\n#elif",
            "    store<BN>(job, on, tile, shared);\n}\n#elif",
        ),
        source(
            PLAIN,
            "a pixel's byte in another's row",
            "(ty * RM + i) * Finished<BN>::PITCH",
            "(ty * RM + (i ^ 1)) * Finished<BN>::PITCH",
        ),
    ]
}

/// Preparation and explanation.
fn around() -> Vec<Mutant> {
    vec![
        picture(
            MMA,
            "the next row over the one in use",
            "__syncthreads();   // all are done with the row\n",
            "\n",
        ),
        picture(PLAIN, "margins grow from the wrong column", "y < ends.x ||", "y < sides.x ||"),
        picture(
            DP4A,
            "a white run that ends a pixel late",
            "return done + __ffs(others) - 1;",
            "return done + __ffs(others);",
        ),
        picture(
            MMA,
            "a row that begins at its word",
            "start = region + y * pitch, skip = start & 3;",
            "start = region + y * pitch, skip = 0;",
        ),
        picture(MMA, "cut towards zero", "int sum = 1 << 13;", "int sum = 0;"),
        picture(WMMA, "what rounding left over is lost", "to->weights[heaviest][o] = most + rest;", ""),
        picture(
            DP4A,
            "a filter that shrinks as narrow as one that enlarges",
            "support = max(from, SIDE), centre",
            "support = SIDE, centre",
        ),
        picture(MMA, "the median one cell too early", "> BAND_CELLS / 2) high", ">= BAND_CELLS / 2) high"),
        picture(PLAIN, "a search that ends too early", "step < 14;", "step < 8;"),
        picture(
            PLAIN,
            "the median taken for the brightest",
            "if (counts >> 16 > BAND_CELLS * 98 / 100)",
            "if (counts >> 16 > BAND_CELLS * 50 / 100)",
        ),
        picture(
            WMMA,
            "no fence before the band is looked for",
            "    __shared__ u32 drawn;\n    __threadfence();\n    __syncthreads();",
            "    __shared__ u32 drawn;\n    __syncthreads();",
        ),
        picture(
            MMA,
            "strips read before all blocks have written",
            "if (!is_last(tickets, SIDE)) return;",
            "if (!is_last(tickets, SIDE - 1)) return;",
        ),
        picture(
            DP4A,
            "a sum of the block over the one in use",
            "__syncthreads();   // all are done with the sum before",
            "//",
        ),
        picture(MMA, "the band's rows from the region's first", "narrow + band[0] * NARROW_PITCH", "narrow"),
        picture(WMMA, "a closed gate let through", "units[t] > 0.0f ? head->second", "true ? head->second"),
        picture(MMA, "the other half's slopes", "slopes[half + 4 * w + b]", "slopes[4 * w + b]"),
        picture(
            PLAIN,
            "slopes read before they are there",
            "__syncthreads();   // the slopes are there",
            "//",
        ),
        picture(
            DP4A,
            "a position's classes mixed",
            "partial + best * CELLS + t",
            "partial + t * CLASSES + best",
        ),
        picture(
            MMA,
            "the heat a row too high",
            "top = edge(first, p.frame_height",
            "top = edge(first - 1, p.frame_height",
        ),
        picture(
            WMMA,
            "the fourth pixel's colours cut",
            "to[2] = pixels[2] >> 16 | pixels[3] << 8;",
            "to[2] = pixels[2] >> 16 | pixels[3] << 16;",
        ),
        picture(
            PLAIN,
            "the last pixels read beside the frame",
            "min(left + b, p.shown_width - 1)",
            "left + b + 4",
        ),
    ]
}
