//! Grey under heat, coloured from a table.

/// RGB and a spare byte of each grey under each of 256 heats, `[heat][grey]`.
pub type Colours = [[[u8; 4]; 256]; 256];

/// Colours `pixels` from their grey and a heat that runs straight: `heat` in units of 2^-24 of a table's row at the first
/// pixel, `slope` from pixel to pixel.
pub fn colour(heat: u32, slope: i32, line: &[u8], pixels: &mut [[u8; 3]], colours: &Colours) {
    let count = line.len().min(pixels.len());
    let done = eights(heat, slope, &line[..count], &mut pixels[..count], colours);
    let mut heat = heat.wrapping_add_signed(slope.wrapping_mul(done as i32));
    for (pixel, grey) in pixels[done..count].iter_mut().zip(&line[done..count]) {
        let [r, g, b, _] = colours[(heat >> 24) as usize][usize::from(*grey)];
        *pixel = [r, g, b];
        heat = heat.wrapping_add_signed(slope);
    }
}

/// Colours whole eights of pixels but the last and gives their number.
#[cfg(target_arch = "x86_64")]
fn eights(heat: u32, slope: i32, line: &[u8], pixels: &mut [[u8; 3]], colours: &Colours) -> usize {
    if !super::avx2() {
        return 0;
    }
    // SAFETY: the CPU has AVX2; both slices have the same length.
    unsafe { x86(heat, slope, line, pixels, colours) }
}

#[cfg(not(target_arch = "x86_64"))]
fn eights(_: u32, _: i32, _: &[u8], _: &mut [[u8; 3]], _: &Colours) -> usize {
    0
}

/// # Safety
/// `line` and `pixels` have the same length.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn x86(heat: u32, slope: i32, line: &[u8], pixels: &mut [[u8; 3]], colours: &Colours) -> usize {
    use std::arch::x86_64::*;
    // Each eight writes 28 bytes of which 24 are its own, so a pixel or two must follow.
    let eights = line.len().saturating_sub(2) / 8;
    let step = _mm256_mullo_epi32(_mm256_set1_epi32(slope), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    let mut heats = _mm256_add_epi32(_mm256_set1_epi32(heat as i32), step);
    let next = _mm256_set1_epi32(slope.wrapping_mul(8));
    let rows = _mm256_set1_epi32(0xff00);
    let packed = _mm256_setr_epi8(
        0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1, 0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1,
        -1, -1, -1,
    );
    for eight in 0..eights {
        // SAFETY: eight greys lie at `eight * 8`; an index is below 65536; the two stores end four bytes behind the eight
        // pixels, where two more pixels lie.
        unsafe {
            let greys = _mm256_cvtepu8_epi32(_mm_loadl_epi64(line.as_ptr().add(eight * 8).cast()));
            let index = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi32::<16>(heats), rows), greys);
            let lit = _mm256_i32gather_epi32::<4>(colours.as_ptr().cast(), index);
            let lit = _mm256_shuffle_epi8(lit, packed);
            let out = pixels.as_mut_ptr().add(eight * 8).cast::<u8>();
            _mm_storeu_si128(out.cast(), _mm256_castsi256_si128(lit));
            _mm_storeu_si128(out.add(12).cast(), _mm256_extracti128_si256::<1>(lit));
        }
        heats = _mm256_add_epi32(heats, next);
    }
    eights * 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_pixel_is_the_tables(count in 0usize..60, heat: u32, slope in -40_000_000i32..40_000_000, seed: u32) {
            let mut table: Box<Colours> = Box::new([[[0; 4]; 256]; 256]);
            for (i, colour) in table.iter_mut().flatten().enumerate() {
                *colour = (i as u32).wrapping_mul(2_654_435_761).to_le_bytes();
            }
            let line: Vec<u8> = (0..count as u32).map(|i| (i ^ seed).wrapping_mul(40_503) as u8).collect();
            let mut pixels = vec![[9; 3]; count + 3];
            colour(heat, slope, &line, &mut pixels[..count], &table);
            for (i, pixel) in pixels[..count].iter().enumerate() {
                let heat = heat.wrapping_add_signed(slope.wrapping_mul(i as i32));
                prop_assert_eq!(&pixel[..], &table[(heat >> 24) as usize][usize::from(line[i])][..3]);
            }
            prop_assert_eq!(&pixels[count..], &[[9; 3]; 3]);
        }
    }
}
